// Constants of base conversions, in the form in which the kernels want them.
#pragma once

#include <vector>

#include "ring/kernels.hpp"

namespace lattice {

using Moduli = std::vector<u64>;
using Tables = std::vector<const NttTable*>;

Tables tables_of(const Moduli& moduli, int log_n, Isa isa);

// From the primes d_j of `source`, with product D, to those of `target`. Every step is exact; the centred definition is
// that of lattice.fhe.ring.rns.convert.
class BaseConversion {
  public:
    BaseConversion() = default;
    // `divided`: what arrives is divided by the radix R of its prime, as sums of products are, and what leaves is to be
    // divided by the radix of its own; the constants absorb both.
    BaseConversion(const Tables& source, const Tables& target, bool divided);

    // y_j = x_j·(D/d_j)^{-1}: for coefficients, and for `inverse_centred`, which takes N^{-1} along.
    Factor to_y(std::size_t j) const { return to_y_[j]; }
    Factor sum(std::size_t j) const { return sum_[j]; }
    Factor difference(std::size_t j) const { return difference_[j]; }

    // The conversion to target prime i of centred residues z.
    Conversion to(std::size_t i, const u64* const* z) const {
        return {z, sources_, weights_.data() + i * sources_, offsets_[i]};
    }
    std::size_t sources() const { return sources_; }

  private:
    std::size_t sources_ = 0;
    std::vector<Factor> to_y_, sum_, difference_;
    std::vector<u64> weights_;  // [target][source]
    std::vector<u64> offsets_;
};

// D modulo q, its inverse, and so on.
u64 product_mod(const Tables& primes, u64 q);

}  // namespace lattice
