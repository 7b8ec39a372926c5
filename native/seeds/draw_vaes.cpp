// Thirty-two blocks at a time, four in a register. Compiled for VAES and AVX-512.
#include <immintrin.h>

#include "seeds/aes256.hpp"

namespace lattice {
namespace {

constexpr int kWays = 8;
static_assert(kBlocksAtOnce == 4 * kWays);

[[gnu::always_inline]] inline __m512i four(const std::uint8_t key[16]) {
    return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(key)));
}

}  // namespace

std::size_t draw_vaes(u64* out, const Draws& draws, u64 first, std::size_t blocks) {
    __m512i keys[kAesRounds + 1];
    for (int r = 0; r <= kAesRounds; ++r) keys[r] = four(draws.keys->bytes[r]);
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    const __m512i mask = _mm512_set1_epi64(static_cast<long long>(draws.mask));
    const __m512i q = _mm512_set1_epi64(static_cast<long long>(draws.q));
    const auto s = static_cast<long long>(draws.stream), c = static_cast<long long>(first);
    __m512i counter = _mm512_setr_epi64(s, c, s, c + 1, s, c + 2, s, c + 3);
    const __m512i step = _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4);
    std::size_t kept = 0;
    for (std::size_t b = 0; b < blocks; b += kBlocksAtOnce) {
        __m512i x[kWays];
        for (int i = 0; i < kWays; ++i) {
            x[i] = _mm512_xor_si512(_mm512_shuffle_epi8(counter, swap), keys[0]);
            counter = _mm512_add_epi64(counter, step);
        }
        for (int round = 1; round < kAesRounds; ++round) {
            for (int i = 0; i < kWays; ++i) x[i] = _mm512_aesenc_epi128(x[i], keys[round]);
        }
        for (int i = 0; i < kWays; ++i) {
            const __m512i draw = _mm512_and_si512(_mm512_aesenclast_epi128(x[i], keys[kAesRounds]), mask);
            const __mmask8 good = _mm512_cmplt_epu64_mask(draw, q);
            // Storing the whole register is faster than a masked store; what is too much lies below 2·blocks, too.
            _mm512_storeu_si512(out + kept, _mm512_maskz_compress_epi64(good, draw));
            kept += static_cast<std::size_t>(__builtin_popcount(good));
        }
    }
    return kept;
}

}  // namespace lattice
