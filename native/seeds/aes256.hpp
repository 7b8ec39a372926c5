// AES-256 for public seeds: what a seed says, everybody may know, so tables whose timing depends on the key are fine
// here. Secret streams come from a reviewed library and never from this file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/integers.hpp"

namespace lattice {

constexpr std::size_t kSeedBytes = 32;
constexpr int kAesRounds = 14;

// FIPS 197, in the byte order in which instructions read them.
struct RoundKeys {
    alignas(64) std::uint8_t bytes[kAesRounds + 1][16];
};

RoundKeys expand_key(const std::uint8_t seed[kSeedBytes]);

// One block, in plain C++.
void encrypt_block(std::uint8_t out[16], const std::uint8_t in[16], const RoundKeys& keys);

// Draws of one stream (see lattice.fhe.ckks.seeds): the two little-endian words of each block from `first` on, masked
// and kept if below q. Returns how many were kept; `out` has room for 2·blocks. `blocks` is a multiple of kBlocksAtOnce.
constexpr std::size_t kBlocksAtOnce = 32;
struct Draws {
    const RoundKeys* keys;
    u64 stream;  // the first half of the counter block, as a number
    u64 q;
    u64 mask;
};
using DrawKernel = std::size_t (*)(u64* out, const Draws& draws, u64 first, std::size_t blocks);

std::size_t draw_portable(u64* out, const Draws& draws, u64 first, std::size_t blocks);
#if defined(LATTICE_X86)
std::size_t draw_aesni(u64* out, const Draws& draws, u64 first, std::size_t blocks);
std::size_t draw_vaes(u64* out, const Draws& draws, u64 first, std::size_t blocks);
#endif

}  // namespace lattice
