// Eight lanes on AVX-512 IFMA, whose multiplier takes the low 52 bits of both operands and adds the low or the high
// 52 bits of the product to an accumulator. The vocabulary is that of lanes_scalar.hpp with R = 2^52.
//
// kHeadroom = H says that multiplicands may reach H·q ≤ 2^52: 4 for 50-bit primes, 8 below 2^49, 16 below 2^48.
// Smaller primes need fewer reductions, so the kernels exist once for each.
#pragma once

#include <immintrin.h>

#include <cstddef>

#include "ring/table.hpp"

namespace lattice {
namespace {

template <int H>
struct IfmaLanes {
    using Word = __m512i;
    static constexpr int kLanes = 8;
    static constexpr int kLogLanes = 3;
    static constexpr int kMaxLog = 4;   // radix-16 passes: 16 of the 32 registers hold data
    static constexpr int kTailLog = 7;  // 16 registers of 8 lanes
    static constexpr int kHeadroom = H;
    static constexpr bool kSigned = false;
    static constexpr bool kComputesLaneFactors = true;
    static constexpr int kRadixBits = 52;
    static constexpr u64 kMask = (u64{1} << 52) - 1;

    struct Mod {
        Word q, q2, q4, q8, inverse;
        u64 value;
        explicit Mod(const Modulus& m)
            : q(splat(m.value)), q2(splat(2 * m.value)), q4(splat(4 * m.value)), q8(splat(8 * m.value)),
              inverse(splat(m.inverse & kMask)), value(m.value) {}
        Word times(int k) const {
            return k == 1 ? q : k == 2 ? q2 : k == 4 ? q4 : k == 8 ? q8 : splat(value * static_cast<u64>(k));
        }
    };
    struct Mul {
        Word w, wq;
    };
    struct Sum {
        Word low, high;
    };

    static Factor encode(u64 w, const Modulus& m) {
        const u64 scaled = static_cast<u64>((static_cast<u128>(w) << 52) % m.value);
        return {scaled, (scaled * m.inverse - 1) & kMask};
    }

    static Word load(const u64* p) { return _mm512_loadu_si512(p); }
    static void store(u64* p, Word x) { _mm512_storeu_si512(p, x); }
    static Word load_permuted(const u64* p, u32 where, const u64* patterns) {
        const Word lanes = _mm512_load_si512(patterns + kLanes * (where % kLanes));
        return _mm512_permutexvar_epi64(lanes, load(p + where / kLanes * kLanes));
    }
    static Word as_term(Word x, const Mod&) { return x; }
    static Word from_residue(Word x) { return x; }
    static Word to_residue(Word x) { return x; }
    static Word zero() { return _mm512_setzero_si512(); }
    static Word splat(u64 x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
    static Word add(Word a, Word b) { return _mm512_add_epi64(a, b); }
    static Word sub(Word a, Word b) { return _mm512_sub_epi64(a, b); }
    static Word smaller(Word a, Word b) { return _mm512_min_epu64(a, b); }

    static Mul factor(const u64* first, const u64* second) { return {splat(*first), splat(*second)}; }
    static Mul factor(const Factor& f) { return {splat(f.first), splat(f.second)}; }

    // k = y·w·q^{-1} mod 2^52. The multiplier only accumulates, and copying a zero to accumulate on takes a slot; so y
    // itself is the accumulator, and the table holds w·q^{-1} − 1. (Only the low 52 bits of k are ever read.)
    static Word quotient(Word y, Mul f) { return _mm512_madd52lo_epu64(y, y, f.wq); }

    // y·w in (−q, q)
    static Word product(Word y, Mul f, const Mod& m) {
        const Word up = _mm512_madd52hi_epu64(zero(), y, f.w);
        return sub(up, _mm512_madd52hi_epu64(zero(), quotient(y, f), m.q));
    }
    // y·w in (0, 2q): the accumulator starts at q.
    static Word product_up(Word y, Mul f, const Mod& m) {
        const Word up = _mm512_madd52hi_epu64(m.q, y, f.w);
        return sub(up, _mm512_madd52hi_epu64(zero(), quotient(y, f), m.q));
    }
    // (x, y) → (x + t, x − t) for t = y·w in (−q, q): three multiplications and three additions, no copies.
    static void butterfly(Word& x, Word& y, Mul f, const Mod& m) {
        const Word twice = add(x, x);
        const Word up = _mm512_madd52hi_epu64(zero(), y, f.w);
        const Word minus = _mm512_madd52hi_epu64(sub(x, up), quotient(y, f), m.q);
        x = sub(twice, minus);
        y = minus;
    }
    // The same for any y that fits its lane's multiplier once shifted by q: y in (−q, (kHeadroom − 1)·q).
    static Word product_any(Word y, Mul f, const Mod& m) { return product_up(add(y, m.q), f, m); }

    static Sum no_sum() { return {zero(), zero()}; }
    // Room for 2^12 terms in each half.
    static void accumulate(Sum& s, Word a, Word b, const Mod&) {
        s.low = _mm512_madd52lo_epu64(s.low, a, b);
        s.high = _mm512_madd52hi_epu64(s.high, a, b);
    }
    static Word finish(const Sum& s, const Mod& m) {
        const Word k = _mm512_madd52lo_epu64(zero(), s.low, m.inverse);
        const Word up = add(s.high, _mm512_srli_epi64(s.low, 52));
        return sub(up, _mm512_madd52hi_epu64(zero(), k, m.q));
    }

    static constexpr double kTermReach = 1.0 / 4503599627370496.0;  // of a term in a finished sum: q/R of q

    // Plain integers of 64 bits.
    using Integer = Word;
    static constexpr int kPeriodicVectors = 4;
    static Integer no_integers() { return zero(); }
    static Integer integers(const u64* p) { return splat(*p); }
    static Integer widened(const u32* p) {
        return _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    // kTiny: products have 52 bits, and one instruction does it.
    template <bool kTiny>
    static Integer integer_product(Integer sum, Integer a, Integer b) {
        if constexpr (kTiny) return _mm512_madd52lo_epu64(sum, a, b);
        return _mm512_add_epi64(sum, _mm512_mul_epu32(a, b));
    }
    static void carry(Integer& low, Integer& high) {
        high = add(high, _mm512_srli_epi64(low, 32));
        low = _mm512_and_si512(low, splat(0xffffffff));
    }

    // kGroup consecutive factors, repeated to fill the lanes. One more multiplication is cheaper than twice the table.
    template <int kGroup>
    static Mul lane_factors(Twiddles w, std::size_t at, const Mod& m) {
        const Word first = group<kGroup>(w.first + at);
        return {first, _mm512_madd52lo_epu64(splat(~u64{0}), first, m.inverse)};
    }

    // The halves of a perfect shuffle of the 16 words of (a, b): a0 b0 a1 b1 a2 b2 a3 b3 and a4 b4 … b7.
    static Word shuffle_low(Word a, Word b) {
        return _mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
    }
    static Word shuffle_high(Word a, Word b) {
        return _mm512_permutex2var_epi64(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
    }
    // The way back: even and odd words. Between the first and the last call, lanes stand in reverse, as factors then do.
    static void unshuffle_first(Word& a, Word& b) {
        const Word even = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(14, 12, 10, 8, 6, 4, 2, 0), b);
        b = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(15, 13, 11, 9, 7, 5, 3, 1), b);
        a = even;
    }
    static void unshuffle(Word& a, Word& b) {
        const Word even = _mm512_permutex2var_epi64(b, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), a);
        b = _mm512_permutex2var_epi64(b, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), a);
        a = even;
    }
    static void unshuffle_last(Word& a, Word& b) {
        const Word even = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(7, 5, 3, 1, 15, 13, 11, 9), b);
        b = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(6, 4, 2, 0, 14, 12, 10, 8), b);
        a = even;
    }

  private:
    template <int kGroup>
    static Word group(const u64* p) {
        if constexpr (kGroup == 2) {
            return _mm512_broadcast_i64x2(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        } else if constexpr (kGroup == 4) {
            return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        } else {
            return load(p);
        }
    }
};

}  // namespace
}  // namespace lattice
