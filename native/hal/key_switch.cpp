#include "hal/key_switch.hpp"

#include <atomic>
#include <stdexcept>

#include "base/pool.hpp"
#include "hal/scratch.hpp"

namespace lattice {
namespace {

using Digits = PointerList<const u64*>;
using Unfinished = PointerList<u64*>;

// Everything that the limbs of one switch_keys share.
struct Switch {
    const SwitchConstants& c;
    const u64* input;
    const std::vector<SwitchTarget>& targets;
    Buffer z;        // [q limbs, n]: centred residues of the input's coefficients
    Buffer dropped;  // [targets, 2, special limbs, n]: the same of each target's special part
    std::atomic<std::size_t> specials_done{0};

    Switch(const SwitchConstants& constants, const u64* in, const std::vector<SwitchTarget>& all)
        : c(constants), input(in), targets(all), z(c.q_limbs * c.n), dropped(all.size() * 2 * c.special_limbs * c.n) {}

    u64* dropped_at(std::size_t target, std::size_t half) const {
        return dropped.data() + (target * 2 + half) * c.special_limbs * c.n;
    }

    void to_coefficients(std::size_t limb) const {
        const std::size_t digit = c.digit_of[limb];
        const std::size_t j = limb - c.digits[digit].first;
        const NttTable& table = *c.tables[limb];
        table.kernels->inverse_centred(z.data() + limb * c.n, input + limb * c.n, table, c.up[digit].sum(j),
                                       c.up[digit].difference(j));
    }

    // The digits modulo one prime, transformed but for their leaves. A digit's own prime needs no conversion.
    Digits extend(std::size_t limb, u64* space, Unfinished& unfinished) const {
        const NttTable& table = *c.tables[limb];
        Digits digits;
        for (std::size_t d = 0; d < c.digits.size(); ++d) {
            const auto [start, end] = c.digits[d];
            u64* own = space + d * c.n;
            digits.push(own);
            if (limb < c.q_limbs && c.digit_of[limb] == d) {
                if (table.kernels->residues_are_lazies) {
                    digits[d] = input + limb * c.n;
                } else {
                    table.kernels->to_lazies(own, input + limb * c.n, 0, c.n, table.modulus);
                }
            } else {
                const Rows from(z.data() + start * c.n, end - start, c.n);
                table.kernels->forward_converted(own, c.up[d].to(limb, from.begin()), table);
                unfinished.push(own);
            }
        }
        return digits;
    }

    // Σ_d σ(digit_d)·key_d modulo one prime, for one target, leaf by leaf. The first target also finishes the digits.
    void sum(std::size_t limb, std::size_t target, const Digits& digits, const Unfinished& unfinished,
             u64* sums) const {
        const NttTable& table = *c.tables[limb];
        const SwitchTarget& t = targets[target];
        Digits key_b, key_a;
        for (std::size_t d = 0; d < digits.size(); ++d) {
            key_b.push(t.key.limb(c, d, 0, limb));
            key_a.push(t.key.limb(c, d, 1, limb));
        }
        const GadgetProduct product{sums,          sums + c.n,    digits.begin(), key_b.begin(),
                                    key_a.begin(), digits.size(), t.by};
        const int leaf_log = table.kernels->leaf_log(c.log_n);
        for (std::size_t leaf = 0; leaf < c.n >> leaf_log; ++leaf) {
            const std::size_t start = leaf << leaf_log;
            if (target == 0) {
                const std::size_t from = t.by == nullptr ? leaf : t.by->source_of(start) >> leaf_log;
                for (u64* digit : unfinished) table.kernels->leaf_to_lazies(digit, from, table);
            }
            table.kernels->gadget(product, start, std::size_t{1} << leaf_log, table.modulus);
        }
    }

    void divide(std::size_t limb, std::size_t target, const u64* sums, u64* rest) const {
        const NttTable& table = *c.tables[limb];
        const SwitchTarget& t = targets[target];
        for (std::size_t half = 0; half < 2; ++half) {
            const Rows from(dropped_at(target, half), c.special_limbs, c.n);
            table.kernels->forward_converted(rest, c.down.to(limb, from.begin()), table);
            Addend addend = t.addend[half];
            if (addend.data != nullptr) addend.data += limb * c.n;
            const int leaf_log = table.kernels->leaf_log(c.log_n);
            for (std::size_t leaf = 0; leaf < c.n >> leaf_log; ++leaf) {
                table.kernels->leaf_to_quotient(t.out[half] + limb * c.n, rest, leaf, table, sums + half * c.n,
                                                c.down_factor[limb], addend);
            }
        }
    }

    // Special primes come first, because the division waits for them. No thread waits for work that nobody has begun.
    void one_limb(std::size_t item) {
        const std::size_t limb = item < c.special_limbs ? c.q_limbs + item : item - c.special_limbs;
        Scratch& mine = scratch();
        u64* space = mine.digits.require(c.digits.size() * c.n);
        u64* sums = mine.sums.require(2 * c.n);
        u64* rest = mine.rest.require(c.n);
        Unfinished unfinished;
        const auto digits = extend(limb, space, unfinished);
        const NttTable& table = *c.tables[limb];
        for (std::size_t target = 0; target < targets.size(); ++target) {
            sum(limb, target, digits, unfinished, sums);
            if (item < c.special_limbs) {
                for (std::size_t half = 0; half < 2; ++half) {
                    table.kernels->inverse_centred(dropped_at(target, half) + item * c.n, sums + half * c.n, table,
                                                   c.down.sum(item), c.down.difference(item));
                }
            } else {
                while (specials_done.load(std::memory_order_acquire) < c.special_limbs) {
                }
                divide(limb, target, sums, rest);
            }
        }
        if (item < c.special_limbs) specials_done.fetch_add(1, std::memory_order_release);
    }
};

}  // namespace

SwitchConstants::SwitchConstants(const std::vector<u64>& q, const std::vector<u64>& special,
                                 const std::vector<std::pair<std::size_t, std::size_t>>& ranges, int log_n_, Isa isa_)
    : log_n(log_n_), isa(isa_), n(std::size_t{1} << log_n_), q_limbs(q.size()), special_limbs(special.size()),
      digits(ranges) {
    if (q.size() + special.size() > kMostLimbs) throw std::invalid_argument("more than 256 primes");
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
        const u64 inverse = inverse_mod(product_mod(p_tables, m.value), m.value);
        down_factor.push_back(table->kernels->encode(mul_mod(inverse, m.radix, m.value), m));
    }
}

SwitchContext::SwitchContext(std::size_t n, std::vector<u64> q, std::vector<u64> special,
                             std::vector<std::pair<std::size_t, std::size_t>> digits)
    : n_(n), q_(std::move(q)), special_(std::move(special)), digits_(std::move(digits)) {
    std::size_t next = 0;
    for (const auto& [start, end] : digits_) {
        if (start != next || end <= start) throw std::invalid_argument("digits must be consecutive runs of limbs");
        next = end;
    }
    if (next != q_.size() || q_.empty() || special_.empty()) {
        throw std::invalid_argument("digits must cover all q primes, and there must be special primes");
    }
    constants();  // finds bad moduli now
}

const SwitchConstants& SwitchContext::constants() const {
    const Isa isa = current_isa();
    std::lock_guard<std::mutex> lock(mutex_);
    auto& slot = by_isa_[static_cast<std::size_t>(isa)];
    if (!slot) {
        int log_n = 0;
        while ((std::size_t{1} << log_n) < n_) ++log_n;
        if ((std::size_t{1} << log_n) != n_) throw std::invalid_argument("N is not a power of two");
        slot = std::make_unique<SwitchConstants>(q_, special_, digits_, log_n, isa);
    }
    return *slot;
}

std::vector<u64> SwitchContext::moduli() const {
    std::vector<u64> all = q_;
    all.insert(all.end(), special_.begin(), special_.end());
    return all;
}

void switch_keys(const SwitchConstants& c, const u64* input, const std::vector<SwitchTarget>& targets) {
    Switch work(c, input, targets);
    parallel(c.q_limbs, [&](std::size_t limb) { work.to_coefficients(limb); });
    parallel(c.limbs(), [&](std::size_t item) { work.one_limb(item); });
}

void decompose(const SwitchConstants& c, u64* digits, const u64* input) {
    const std::vector<SwitchTarget> none;
    Switch work(c, input, none);
    parallel(c.q_limbs, [&](std::size_t limb) { work.to_coefficients(limb); });
    parallel(c.digits.size() * c.limbs(), [&](std::size_t item) {
        const std::size_t d = item / c.limbs(), limb = item % c.limbs();
        const auto [start, end] = c.digits[d];
        u64* out = digits + item * c.n;
        if (limb >= start && limb < end) {
            std::copy(input + limb * c.n, input + (limb + 1) * c.n, out);
            return;
        }
        const NttTable& table = *c.tables[limb];
        const Rows from(work.z.data() + start * c.n, end - start, c.n);
        table.kernels->forward_converted(out, c.up[d].to(limb, from.begin()), table);
        for (std::size_t leaf = 0; leaf < c.n >> table.kernels->leaf_log(c.log_n); ++leaf) {
            table.kernels->leaf_to_residues(out, leaf, table);
        }
    });
}

void gadget_product(const SwitchConstants& c, u64* out, const u64* digits, std::size_t digit_stride, KeyView key) {
    parallel(c.limbs(), [&](std::size_t limb) {
        const NttTable& table = *c.tables[limb];
        const Kernels& kernels = *table.kernels;
        Digits rows, key_b, key_a;
        Scratch& mine = scratch();
        u64* space = kernels.residues_are_lazies ? nullptr : mine.digits.require(c.digits.size() * c.n);
        for (std::size_t d = 0; d < c.digits.size(); ++d) {
            const u64* row = digits + d * digit_stride + limb * c.n;
            if (space != nullptr) kernels.to_lazies(space + d * c.n, row, 0, c.n, table.modulus);
            rows.push(space != nullptr ? space + d * c.n : row);
            key_b.push(key.limb(c, d, 0, limb));
            key_a.push(key.limb(c, d, 1, limb));
        }
        u64* halves[2] = {out + limb * c.n, out + (c.limbs() + limb) * c.n};
        kernels.gadget({halves[0], halves[1], rows.begin(), key_b.begin(), key_a.begin(), rows.size(), nullptr}, 0,
                       c.n, table.modulus);
        for (u64* half : halves) kernels.mul_scalar(half, half, table.modulus.to_plain, c.n, table.modulus);
    });
}

}  // namespace lattice
