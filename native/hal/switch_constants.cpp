#include "hal/switch_constants.hpp"

#include <stdexcept>

#include "hal/scratch.hpp"

namespace lattice {

SwitchConstants::SwitchConstants(const Moduli& q, const Moduli& special, const std::vector<LimbRange>& ranges,
                                 int log_n_, Isa isa_)
    : log_n(log_n_), isa(isa_), n(std::size_t{1} << log_n_), q_limbs(q.size()), special_limbs(special.size()),
      digits(ranges) {
    const Tables q_tables = tables_of(q, log_n, isa);
    const Tables p_tables = tables_of(special, log_n, isa);
    tables = q_tables;
    tables.insert(tables.end(), p_tables.begin(), p_tables.end());
    for (std::size_t d = 0; d < digits.size(); ++d) {
        const auto [start, end] = digits[d];
        up.emplace_back(Tables(q_tables.begin() + start, q_tables.begin() + end), tables, false);
        digit_of.insert(digit_of.end(), end - start, d);
    }
    down = BaseConversion(p_tables, q_tables, true);
    for (const NttTable* table : q_tables) {
        const Modulus& m = table->modulus;
        const u64 p = product_mod(p_tables, m.value);
        down_factor.push_back(table->kernels->encode(mul_mod(inverse_mod(p, m.value), m.radix, m.value), m));
        lift.push_back(table->kernels->encode(mul_mod(p, inverse_mod(m.radix, m.value), m.value), m));
    }
}

SwitchContext::SwitchContext(std::size_t n, Moduli q, Moduli special, std::vector<LimbRange> digits)
    : n_(n), log_n_(log2_of(n)), q_(std::move(q)), special_(std::move(special)), digits_(std::move(digits)) {
    std::size_t next = 0;
    for (const auto& [start, end] : digits_) {
        if (start != next || end <= start) throw std::invalid_argument("digits must be consecutive runs of limbs");
        next = end;
    }
    if (next != q_.size() || q_.empty() || special_.empty()) {
        throw std::invalid_argument("digits must cover all q primes, and there must be special primes");
    }
    if (limbs() > kMostLimbs) throw std::invalid_argument("more than 256 primes");
    constants();  // finds bad moduli now
}

const SwitchConstants& SwitchContext::constants() const {
    const Isa isa = current_isa();
    std::lock_guard<std::mutex> lock(mutex_);
    auto& slot = by_isa_[static_cast<std::size_t>(isa)];
    if (!slot) slot = std::make_unique<SwitchConstants>(q_, special_, digits_, log_n_, isa);
    return *slot;
}

}  // namespace lattice
