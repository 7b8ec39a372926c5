// Hybrid key switching: cut into digits, extend each to all primes, multiply by keys, divide by P.
#pragma once

#include <array>
#include <vector>

#include "hal/switch_constants.hpp"
#include "ring/permutation.hpp"

namespace lattice {

// σ(digits)·key; σ may be null.
struct SwitchProduct {
    KeyView key;
    const Permutation* by;
};

// One thing to make of a polynomial's digits: out = ModDown(Σ σ(digits)·key) + Σ addends, for both halves.
struct SwitchTarget {
    std::vector<SwitchProduct> products;
    std::array<std::vector<Addend>, 2> addends;  // [q limbs, n] each
    std::array<u64*, 2> out;                     // [q limbs, n] each
};

// All targets from one decomposition of `input` [q limbs, n] in NTT form.
void switch_keys(const SwitchConstants& c, const u64* input, const std::vector<SwitchTarget>& targets);

// The parts, for callers that keep the digits: [digits, limbs, n] residues, and [2, limbs, n] residues.
void decompose(const SwitchConstants& c, u64* digits, const u64* input);
void gadget_product(const SwitchConstants& c, u64* out, const u64* digits, KeyView key);

}  // namespace lattice
