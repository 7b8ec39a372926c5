// Small signed coefficients: plain loops, which compilers turn into lanes of whatever set they are compiled for. The
// coefficients are secret, so there is no branch and no table.
#pragma once

#include <bit>
#include <cstring>

#include "ring/modulus.hpp"

namespace lattice {
namespace {

inline void residues_of_small(u64* dst, const std::int8_t* src, std::size_t n, const Modulus& m) {
    const u64 q = m.value;
    for (std::size_t i = 0; i < n; ++i) {
        const auto wide = static_cast<std::int64_t>(src[i]);
        dst[i] = static_cast<u64>(wide) + (static_cast<u64>(wide >> 63) & q);
    }
}

// Of each little-endian word, popcount(lowest η bits) − popcount(next η bits), η ≤ 32: both are counted at once, one in
// each half of a word.
inline void centred_binomial(std::int8_t* out, const std::uint8_t* bytes, std::size_t n, int eta) {
    const u64 mask = (u64{1} << eta) - 1;
    for (std::size_t i = 0; i < n; ++i) {
        u64 word;
        std::memcpy(&word, bytes + 8 * i, 8);
        if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
        u64 x = (word & mask) | ((word >> eta) & mask) << 32;
        x -= (x >> 1) & 0x5555555555555555;
        x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333);
        x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
        x += x >> 8;
        x += x >> 16;
        out[i] = static_cast<std::int8_t>((x & 0x3F) - ((x >> 32) & 0x3F));
    }
}

}  // namespace
}  // namespace lattice
