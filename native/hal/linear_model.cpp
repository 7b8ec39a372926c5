#include "hal/linear_model.hpp"

#include <algorithm>
#include <stdexcept>

#include "base/pool.hpp"
#include "hal/scratch.hpp"

namespace lattice {
namespace {

constexpr std::size_t kChunk = 1024;

// One limb of `sum_seeded`, a chunk of positions at a time.
class LimbSum {
  public:
    LimbSum(const std::vector<SeededInput>& inputs, const u64* weights, std::size_t values, std::size_t outs,
            std::size_t limb, std::size_t limbs, const NttTable& table, Isa isa)
        : inputs_(inputs), weights_(weights), values_(values), outs_(outs), limb_(limb), limbs_(limbs), table_(table) {
        for (const SeededInput& input : inputs) streams_.push_back(input.c1.limb(limb, table.modulus.value, isa));
        if (values == table.n()) return;
        for (std::size_t k = 0; k < outs * inputs.size(); ++k) {
            for (std::size_t v = 0; v < values; ++v) {
                factors_.push_back(table.kernels->encode(weights[(k * limbs + limb) * values + v], table.modulus));
            }
        }
    }

    void run(u64* out, const u64* bias) {
        const std::size_t n = table_.n();
        for (std::size_t at = 0; at < n; at += kChunk) {
            const std::size_t length = std::min(kChunk, n - at);
            for (std::size_t a = 0; a < outs_; ++a) {
                const u64* start = bias ? bias + (a * limbs_ + limb_) * n + at : nullptr;
                if (start) std::copy(start, start + length, half(out, a, 0) + at);
                if (!start) std::fill_n(half(out, a, 0) + at, length, 0);
                std::fill_n(half(out, a, 1) + at, length, 0);
            }
            for (std::size_t i = 0; i < inputs_.size(); ++i) {
                alignas(64) u64 uniform[kChunk];
                streams_[i].read(uniform, length);
                for (std::size_t a = 0; a < outs_; ++a) {
                    add(half(out, a, 0), inputs_[i].c0 + limb_ * n + at, a, i, at, length);
                    add(half(out, a, 1), uniform, a, i, at, length);
                }
            }
        }
    }

  private:
    u64* half(u64* out, std::size_t a, std::size_t which) const {
        return out + ((a * 2 + which) * limbs_ + limb_) * table_.n();
    }

    // to[at, at + length) += w[a, i] ⊙ x[0, length)
    void add(u64* to, const u64* x, std::size_t a, std::size_t i, std::size_t at, std::size_t length) const {
        const std::size_t n = table_.n(), pair = a * inputs_.size() + i;
        const Kernels& kernels = *table_.kernels;
        if (values_ == n) {
            const u64* w = weights_ + (pair * limbs_ + limb_) * n + at;
            return kernels.mul_add(to + at, to + at, x, w, length, table_.modulus);
        }
        const std::size_t run = n / values_;
        for (std::size_t p = at; p < at + length;) {
            const std::size_t v = p / run, end = std::min((v + 1) * run, at + length);
            kernels.add_permuted(to + p, {x + (p - at), nullptr}, &factors_[pair * values_ + v], 0, end - p, table_.modulus);
            p = end;
        }
    }

    const std::vector<SeededInput>& inputs_;
    const u64* weights_;
    std::size_t values_, outs_, limb_, limbs_;
    const NttTable& table_;
    std::vector<UniformStream> streams_;
    std::vector<Factor> factors_;
};

// out += a·u
void add_product(u64* out, UniformStream a, const u64* u, const NttTable& table) {
    alignas(64) u64 uniform[kChunk];
    for (std::size_t at = 0; at < table.n(); at += kChunk) {
        const std::size_t length = std::min(kChunk, table.n() - at);
        a.read(uniform, length);
        table.kernels->mul_add(out + at, out + at, uniform, u + at, length, table.modulus);
    }
}

void keep(u64* x, const CoefficientBlinding& by, std::size_t n, u64 q) {
    for (std::size_t i = 0; i < n; ++i) {
        const u64 wide = static_cast<u64>(by.flood[i]);
        const u64 noise = by.flood[i] < 0 ? wide + q : wide;
        x[i] = by.kept[i] ? add_mod(x[i], noise, q) : 0;
    }
}

void blind_limb(u64* c0, u64* c1, std::size_t limb, const CoefficientBlinding& by, const NttTable& table, Isa isa) {
    const Kernels& k = *table.kernels;
    const Modulus& m = table.modulus;
    const std::size_t n = table.n();
    u64* u = scratch().rest.require(2 * n);
    u64* e = u + n;
    k.from_small(u, by.u, n, m);
    k.forward(u, u, table);
    k.from_small(e, by.e, n, m);
    k.forward(e, e, table);
    k.add(c1, c1, e, n, m);
    add_product(c1, by.a->limb(limb, m.value, isa), u, table);
    k.mul_add(c0, c0, by.b + limb * n, u, n, m);
    k.inverse(c0, c0, table);
    keep(c0, by, n, m.value);
    k.forward(c0, c0, table);
}

}  // namespace

void sum_seeded(u64* out, std::size_t outs, const std::vector<SeededInput>& inputs, const u64* weights,
                std::size_t values, const u64* bias, const Moduli& moduli, int log_n) {
    const std::size_t n = std::size_t{1} << log_n;
    if (values == 0 || n % values != 0 || (values != n && n / values < 64)) {
        throw std::invalid_argument("weights are full polynomials, or repeat over 64 neighbours or more");
    }
    const Isa isa = current_isa();
    const Tables tables = tables_of(moduli, log_n, isa);
    std::vector<LimbSum> sums;
    for (std::size_t limb = 0; limb < tables.size(); ++limb) {
        sums.emplace_back(inputs, weights, values, outs, limb, tables.size(), *tables[limb], isa);
    }
    parallel(tables.size(), [&](std::size_t limb) { sums[limb].run(out, bias); });
}

void blind_coefficients(u64* out, const u64* result, const CoefficientBlinding& by, const Moduli& moduli, int log_n) {
    const Isa isa = current_isa();
    const Tables tables = tables_of(moduli, log_n, isa);
    const std::size_t n = std::size_t{1} << log_n, limbs = tables.size();
    if (by.a->limbs() < limbs) throw std::invalid_argument("the public key has fewer primes than the result");
    if (out != result) std::copy(result, result + 2 * limbs * n, out);
    parallel(limbs, [&](std::size_t limb) {
        blind_limb(out + limb * n, out + (limbs + limb) * n, limb, by, *tables[limb], isa);
    });
}

}  // namespace lattice
