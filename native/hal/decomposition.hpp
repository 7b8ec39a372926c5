// A polynomial cut into digits, prime by prime: what a key is multiplied by.
#pragma once

#include "hal/scratch.hpp"
#include "hal/switch_constants.hpp"

namespace lattice {

// Rows a power of two apart would share cache sets.
inline std::size_t row_stride(std::size_t n) { return n + 17 * 8; }

// The digits modulo one prime. Those that were transformed up to their leaves, and only those, are in `work`.
struct LimbDigits {
    PointerList<const u64*> rows;
    PointerList<u64*> work;
};

class Decomposition {
  public:
    // `input` is [q limbs, n] in NTT form.
    Decomposition(const SwitchConstants& constants, const u64* input);

    // Must have been done for every q limb before any digit is extended.
    void to_coefficients(std::size_t q_limb) const;

    // Converted to one prime and transformed up to the leaves, in `space` [digits, row_stride(n)]. A digit's own
    // prime needs no conversion.
    LimbDigits extend(std::size_t limb, u64* space) const;

    // One digit modulo one prime, as residues; false if the digit has this prime itself.
    bool extend_one(std::size_t digit, std::size_t limb, u64* out) const;

  private:
    const SwitchConstants& c_;
    const u64* input_;
    std::size_t stride_;
    Buffer z_;  // [q limbs, stride]: centred residues of the coefficients
};

}  // namespace lattice
