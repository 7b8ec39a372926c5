// Small signed coefficients as residues. A plain loop: compilers turn it into lanes of whatever set it is compiled for.
#pragma once

#include "ring/modulus.hpp"

namespace lattice {
namespace {

// No branch and no table, because the coefficients are secret.
inline void residues_of_small(u64* dst, const std::int8_t* src, std::size_t n, const Modulus& m) {
    const u64 q = m.value;
    for (std::size_t i = 0; i < n; ++i) {
        const auto wide = static_cast<std::int64_t>(src[i]);
        dst[i] = static_cast<u64>(wide) + (static_cast<u64>(wide >> 63) & q);
    }
}

}  // namespace
}  // namespace lattice
