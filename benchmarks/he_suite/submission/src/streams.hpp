// Which public seed and stream makes which uniform polynomial: lattice.fhe.ckks.seeds.
#pragma once

#include <array>

#include "bundle.hpp"
#include "seeds/uniform.hpp"

namespace suite {

using Seed = std::array<std::uint8_t, lattice::kSeedBytes>;

enum class Stream : u64 { public_key = 1, relinearisation = 2, galois = 3, ciphertext = 4 };

inline lattice::UniformPolynomial half_of(const Seed& seed, Stream kind, std::size_t digit, std::vector<u64> indices) {
    return {seed.data(), seed.size(), static_cast<u64>(kind), digit, std::move(indices)};
}

inline lattice::UniformPolynomial key_half(const Scheme& scheme, const KeySpec& spec, const Seed& seed,
                                           std::size_t digit) {
    const Stream kind = spec.element == 0 ? Stream::relinearisation : Stream::galois;
    return half_of(seed, kind, digit, scheme.indices(spec.level, true));
}

inline lattice::UniformPolynomial public_half(const Scheme& scheme, std::size_t level, const Seed& seed) {
    return half_of(seed, Stream::public_key, 0, scheme.indices(level, true));
}

inline lattice::UniformPolynomial ciphertext_half(const Scheme& scheme, std::size_t level, const Seed& seed) {
    return half_of(seed, Stream::ciphertext, 0, scheme.indices(level, false));
}

// Enough uniform bytes for n ternary coefficients: a byte has three on average, n/2 bytes have 3n/2.
inline std::size_t ternary_bytes(std::size_t n) { return n / 2 + 512; }

}  // namespace suite
