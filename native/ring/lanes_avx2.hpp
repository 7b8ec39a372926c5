// Four lanes on AVX2, which has no wide integer multiplier but an exact one in disguise: for doubles y and w holding
// integers, h = y·w rounded and l = fma(y, w, −h) are together the exact product. With c = round(y·w/q), computed
// roughly, h − c·q is an integer below 2^53 and therefore exact in one fma; adding l gives y·w − c·q exactly.
//
// So values are doubles holding signed integers. Bounds, for q < 2^50 and |w| ≤ q/2: if |y| ≤ 4q then |y·w/q| ≤ 2^51, its
// three roundings move it by at most 1/2, rounding to an integer by 1/2 more; hence |product| ≤ q. All sums
// stay below 8q ≤ 2^53. The radix R is 1. Needs -ffp-contract=off: every rounding is one that is written here.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstddef>

#include "ring/table.hpp"

namespace lattice {
namespace {

struct Avx2Lanes {
    using Word = __m256d;
    static constexpr int kLanes = 4;
    static constexpr int kLogLanes = 2;
    static constexpr int kMaxLog = 2;   // radix-4 passes: there are only 16 registers
    static constexpr int kTailLog = 4;  // 4 registers of 4 lanes
    static constexpr int kHeadroom = 4;
    static constexpr bool kSigned = true;
    static constexpr bool kComputesLaneFactors = false;  // w/q must be rounded once, not twice
    static constexpr int kRadixBits = 0;

    struct Mod {
        Word q, reciprocal;
        explicit Mod(const Modulus& m) : q(_mm256_set1_pd(m.real)), reciprocal(_mm256_set1_pd(m.reciprocal)) {}
        Word times(int k) const { return k == 1 ? q : _mm256_mul_pd(q, _mm256_set1_pd(k)); }
    };
    struct Mul {
        Word w, wq;
    };
    struct Sum {
        Word total;
    };

    static Factor encode(u64 w, const Modulus& m) {
        const bool negative = w > m.value / 2;
        const double balanced = negative ? -static_cast<double>(m.value - w) : static_cast<double>(w);
        return {std::bit_cast<u64>(balanced), std::bit_cast<u64>(balanced / m.real)};
    }

    static Word load(const u64* p) { return _mm256_loadu_pd(reinterpret_cast<const double*>(p)); }
    static void store(u64* p, Word x) { _mm256_storeu_pd(reinterpret_cast<double*>(p), x); }
    // An integer below 2^52 in the mantissa of 2^52.
    static Word load_permuted(const u64* p, u32 where, const u64* patterns) {
        const __m256i lanes = _mm256_load_si256(reinterpret_cast<const __m256i*>(patterns + kLanes * (where % kLanes)));
        // Lanes of 64 bits, moved as pairs of 32.
        const __m256i twice = _mm256_slli_epi64(lanes, 1);
        const __m256i pairs = _mm256_or_si256(twice, _mm256_slli_epi64(_mm256_add_epi64(twice, _mm256_set1_epi64x(1)), 32));
        const __m256i x = _mm256_castpd_si256(load(p + where / kLanes * kLanes));
        return _mm256_castsi256_pd(_mm256_permutevar8x32_epi32(x, pairs));
    }
    // Only what is this small may enter a sum of up to eight products: each then adds at most 0.7q.
    static Word as_term(Word x, const Mod& m) { return centre(x, m); }
    static Word from_residue(Word x) { return _mm256_sub_pd(_mm256_or_pd(x, two_52()), two_52()); }
    static Word to_residue(Word x) { return _mm256_xor_pd(_mm256_add_pd(x, two_52()), two_52()); }
    static Word zero() { return _mm256_setzero_pd(); }
    static Word splat(u64 x) { return _mm256_set1_pd(static_cast<double>(x)); }
    static Word add(Word a, Word b) { return _mm256_add_pd(a, b); }
    static Word sub(Word a, Word b) { return _mm256_sub_pd(a, b); }

    static Word real(const u64* p) { return _mm256_broadcast_sd(reinterpret_cast<const double*>(p)); }
    static Mul factor(const u64* first, const u64* second) { return {real(first), real(second)}; }
    static Mul factor(const Factor& f) { return {real(&f.first), real(&f.second)}; }

    static Word product(Word y, Mul f, const Mod& m) {
        return reduce_product(y, f.w, round(_mm256_mul_pd(y, f.wq)), m);
    }
    // (x, y) → (x + t, x − t) for t = y·w
    static void butterfly(Word& x, Word& y, Mul f, const Mod& m) {
        const Word t = product(y, f, m);
        y = sub(x, t);
        x = add(x, t);
    }
    static Word product_any(Word y, Mul f, const Mod& m) { return product(y, f, m); }

    static Sum no_sum() { return {zero()}; }
    static void accumulate(Sum& s, Word a, Word b, const Mod& m) {
        const Word c = round(_mm256_mul_pd(_mm256_mul_pd(a, b), m.reciprocal));
        s.total = add(s.total, reduce_product(a, b, c, m));
    }
    static Word finish(const Sum& s, const Mod& m) { return centre(s.total, m); }

    // Plain integers of 64 bits.
    using Integer = __m256i;
    static constexpr int kPeriodicVectors = 2;
    static Integer no_integers() { return _mm256_setzero_si256(); }
    static Integer integers(const u64* p) { return _mm256_set1_epi64x(static_cast<long long>(*p)); }
    static Integer widened(const u32* p) {
        return _mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static void store_integers(u64* p, Integer x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x); }
    template <bool>
    static Integer integer_product(Integer sum, Integer a, Integer b) {
        return _mm256_add_epi64(sum, _mm256_mul_epu32(a, b));
    }
    static void carry(Integer& low, Integer& high) {
        high = _mm256_add_epi64(high, _mm256_srli_epi64(low, 32));
        low = _mm256_and_si256(low, _mm256_set1_epi64x(0xffffffff));
    }

    // Any |x| ≤ 8q to |x| ≤ q/2 (a hair more).
    static Word centre(Word x, const Mod& m) {
        return _mm256_fnmadd_pd(round(_mm256_mul_pd(x, m.reciprocal)), m.q, x);
    }
    static Word canonical(Word x, const Mod& m) {
        const Word c = centre(x, m);
        return add(c, _mm256_and_pd(_mm256_cmp_pd(c, zero(), _CMP_LT_OQ), m.q));
    }

    template <int kGroup>
    static Mul lane_factors(Twiddles w, std::size_t at, const Mod&) {
        return {group<kGroup>(w.first + at), group<kGroup>(w.second + at)};
    }

    static Word shuffle_low(Word a, Word b) {
        return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20);
    }
    static Word shuffle_high(Word a, Word b) {
        return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31);
    }
    // See lanes_ifma.hpp for the order of the lanes.
    static void unshuffle_first(Word& a, Word& b) {
        const Word low = _mm256_permute2f128_pd(b, a, 0x20), high = _mm256_permute2f128_pd(b, a, 0x31);
        a = _mm256_unpacklo_pd(high, low);
        b = _mm256_unpackhi_pd(high, low);
    }
    static void unshuffle(Word& a, Word& b) {
        const Word low = _mm256_permute2f128_pd(b, a, 0x20), high = _mm256_permute2f128_pd(b, a, 0x31);
        a = _mm256_unpackhi_pd(low, high);
        b = _mm256_unpacklo_pd(low, high);
    }
    static void unshuffle_last(Word& a, Word& b) {
        const Word low = _mm256_permute2f128_pd(a, b, 0x20), high = _mm256_permute2f128_pd(a, b, 0x31);
        a = _mm256_unpackhi_pd(high, low);
        b = _mm256_unpacklo_pd(high, low);
    }

  private:
    static Word two_52() { return _mm256_set1_pd(4503599627370496.0); }
    static Word round(Word x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static Word reduce_product(Word y, Word w, Word c, const Mod& m) {
        const Word h = _mm256_mul_pd(y, w);
        const Word l = _mm256_fmsub_pd(y, w, h);
        return add(_mm256_fnmadd_pd(c, m.q, h), l);
    }
    template <int kGroup>
    static Word group(const u64* p) {
        if constexpr (kGroup == 2) {
            return _mm256_broadcast_pd(reinterpret_cast<const __m128d*>(p));
        } else {
            return load(p);
        }
    }
};

}  // namespace
}  // namespace lattice
