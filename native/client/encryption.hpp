// The arithmetic of encryption modulo one prime, a few thousand positions at a time: the uniform half is expanded,
// used and forgotten in the first-level cache.
#pragma once

#include "hal/conversion.hpp"
#include "ring/permutation.hpp"
#include "seeds/uniform.hpp"

namespace lattice {

// Small coefficients in NTT form. In place: `out` holds nothing else on the way.
void transform_small(u64* out, const std::int8_t* small, const NttTable& table);

// What one limb knows of the secret.
struct LimbSecret {
    const u64* s;             // in NTT form
    const Permutation* turn;  // of s', or null for s²
    u64 gadget;               // how often s' is added; below q
};

// out = e − a·s + plain + gadget·s'; plain may be null.
void encrypt_limb(u64* out, UniformStream a, const std::int8_t* error, const LimbSecret& secret, const u64* plain,
                  const NttTable& table);

// (b·u + e0, a·u + e1) for a ternary u: an encryption of zero under a public key (b, a). `b` and the two halves of `out`
// are [limbs, n] in NTT form.
void encrypt_zero(u64* out, const u64* b, const UniformPolynomial& a, const std::int8_t* u, const std::int8_t* const e[2],
                  const Moduli& moduli, int log_n);

}  // namespace lattice
