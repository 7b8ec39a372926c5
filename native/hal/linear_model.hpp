// Linear models on seeded ciphertexts, and the blinding of results that lie in coefficients: the whole of a request in
// two calls. What an evaluator would otherwise write to memory (expanded halves, transforms) stays in the first cache.
#pragma once

#include <vector>

#include "hal/conversion.hpp"
#include "seeds/uniform.hpp"

namespace lattice {

// A ciphertext as it travels: c0 [limbs, n] in NTT form, c1 as its seed.
struct SeededInput {
    const u64* c0;
    UniformPolynomial c1;
};

// out[a] = Σ_i w[a, i] ⊙ (c0_i, c1_i), plus bias[a] on the first half. Weights are [outs, inputs, limbs, values], where
// values is n or stands for n/values neighbours each; bias is [outs, limbs, n] or null; out is [outs, 2, limbs, n].
void sum_seeded(u64* out, std::size_t outs, const std::vector<SeededInput>& inputs, const u64* weights,
                std::size_t values, const u64* bias, const Moduli& moduli, int log_n);

// What hides everything about a result but its kept coefficients; see lattice.fhe.blinding.
struct CoefficientBlinding {
    const u64* b;                 // the public key, [limbs, n]
    const UniformPolynomial* a;
    const std::int8_t* u;         // ternary
    const std::int8_t* e;         // narrow noise, for c1
    const std::int64_t* flood;    // wide noise, for the kept coefficients of c0
    const std::uint8_t* kept;     // for each coefficient whether it stays
};

// out and result are [2, limbs, n] in NTT form; they may be the same.
void blind_coefficients(u64* out, const u64* result, const CoefficientBlinding& by, const Moduli& moduli, int log_n);

}  // namespace lattice
