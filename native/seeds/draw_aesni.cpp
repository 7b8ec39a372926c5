// Eight blocks at a time. Compiled for AES-NI and SSE4.1; everything here has internal linkage but its entry.
#include <immintrin.h>

#include "seeds/aes256.hpp"

namespace lattice {
namespace {

constexpr int kWays = 8;

// AES of the blocks (stream, first), (stream, first + 1), …
[[gnu::always_inline]] inline void encrypt(__m128i x[kWays], const __m128i keys[kAesRounds + 1], u64 stream, u64 first) {
    const __m128i swap = _mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    for (int i = 0; i < kWays; ++i) {
        const u64 counter = first + static_cast<u64>(i);
        const __m128i block = _mm_set_epi64x(static_cast<long long>(counter), static_cast<long long>(stream));
        x[i] = _mm_xor_si128(_mm_shuffle_epi8(block, swap), keys[0]);
    }
    for (int round = 1; round < kAesRounds; ++round) {
        for (int i = 0; i < kWays; ++i) x[i] = _mm_aesenc_si128(x[i], keys[round]);
    }
    for (int i = 0; i < kWays; ++i) x[i] = _mm_aesenclast_si128(x[i], keys[kAesRounds]);
}

}  // namespace

std::size_t draw_aesni(u64* out, const Draws& draws, u64 first, std::size_t blocks) {
    __m128i keys[kAesRounds + 1];
    for (int r = 0; r <= kAesRounds; ++r) {
        keys[r] = _mm_load_si128(reinterpret_cast<const __m128i*>(draws.keys->bytes[r]));
    }
    std::size_t kept = 0;
    for (std::size_t b = 0; b < blocks; b += kWays) {
        __m128i x[kWays];
        encrypt(x, keys, draws.stream, first + b);
        alignas(16) u64 words[2 * kWays];
        for (int i = 0; i < kWays; ++i) _mm_store_si128(reinterpret_cast<__m128i*>(words + 2 * i), x[i]);
        for (const u64 word : words) {  // no branch: half of the draws of some primes are skipped
            const u64 draw = word & draws.mask;
            out[kept] = draw;
            kept += draw < draws.q;
        }
    }
    return kept;
}

}  // namespace lattice
