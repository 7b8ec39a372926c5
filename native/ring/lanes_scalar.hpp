// One lane of plain 64-bit integers: runs everywhere, and is the easiest of the three to read.
//
// A "lanes" type is the vocabulary in which the kernels are written. All values are residues in lazy form: an
// integer in some small multiple of [0, q), known at compile time (ring/ranges.hpp). Nothing lazy leaves a kernel.
//
// Products are Montgomery products with radix R = 2^64: factors carry R in advance, so y·w comes out plain, from
// two high halves and no division: (y·w − k·q)/R with k = y·w·q^{-1} mod R lies strictly between −q and y·w/R.
#pragma once

#include <cstddef>

#include "ring/modulus.hpp"

namespace lattice {
namespace {

struct ScalarLanes {
    using Word = u64;
    static constexpr int kLanes = 1;
    static constexpr int kLogLanes = 0;
    static constexpr int kMaxLog = 2;        // radix-4 passes
    static constexpr int kTailLog = 2;       // the last pass
    static constexpr int kHeadroom = 16;     // multiplicands lie in [0, 16q)
    static constexpr bool kSigned = false;
    static constexpr bool kComputesLaneFactors = false;
    static constexpr int kRadixBits = 64;    // sums of products are finished divided by 2^64

    struct Mod {
        u64 q, inverse;
        explicit Mod(const Modulus& m) : q(m.value), inverse(m.inverse) {}
        u64 times(int k) const { return q * static_cast<u64>(k); }
    };
    struct Mul {
        u64 w, wq;
    };
    struct Sum {
        u64 low, high;
    };

    static Factor encode(u64 w, const Modulus& m) {
        const u64 scaled = static_cast<u64>((static_cast<u128>(w) << 64) % m.value);
        return {scaled, scaled * m.inverse};
    }

    static Word load(const u64* p) { return *p; }
    static void store(u64* p, Word x) { *p = x; }
    static Word load_permuted(const u64* p, u32 where, const u64*) { return p[where]; }
    static Word as_term(Word x, const Mod&) { return x; }  // fit to enter a sum of products
    static Word from_residue(Word x) { return x; }
    static Word to_residue(Word x) { return x; }
    static Word zero() { return 0; }
    static Word splat(u64 x) { return x; }
    static Word add(Word a, Word b) { return a + b; }
    static Word sub(Word a, Word b) { return a - b; }
    static Word smaller(Word a, Word b) { return a < b ? a : b; }  // unsigned: a negative value counts as huge

    static Mul factor(const u64* first, const u64* second) { return {*first, *second}; }
    static Mul factor(const Factor& f) { return {f.first, f.second}; }

    static u64 high(u64 a, u64 b) { return static_cast<u64>((static_cast<u128>(a) * b) >> 64); }

    // y·w in (−q, q)
    static Word product(Word y, Mul f, const Mod& m) { return high(y, f.w) - high(y * f.wq, m.q); }
    // y·w in (0, 2q)
    static Word product_up(Word y, Mul f, const Mod& m) { return product(y, f, m) + m.q; }

    // (x, y) → (x + t, x − t) for t = y·w
    static void butterfly(Word& x, Word& y, Mul f, const Mod& m) {
        const Word t = product(y, f, m);
        y = x - t;
        x = x + t;
    }
    // The same for any y that fits its lane's multiplier once shifted by q: y in (−q, (kHeadroom − 1)·q).
    static Word product_any(Word y, Mul f, const Mod& m) { return product_up(add(y, m.q), f, m); }

    static Sum no_sum() { return {0, 0}; }
    static void accumulate(Sum& s, Word a, Word b, const Mod&) {
        const u128 total = ((static_cast<u128>(s.high) << 64) | s.low) + static_cast<u128>(a) * b;
        s.low = static_cast<u64>(total);
        s.high = static_cast<u64>(total >> 64);
    }
    static constexpr double kTermReach = 1.0 / 18446744073709551616.0;  // of a term in a finished sum: q/R of q

    // Plain integers of 64 bits.
    using Integer = u64;
    static constexpr int kPeriodicVectors = 2;
    static Integer no_integers() { return 0; }
    static Integer integers(const u64* p) { return *p; }
    static Integer widened(const u32* p) { return *p; }
    static void store_integers(u64* p, Integer x) { *p = x; }
    template <bool>
    static Integer integer_product(Integer sum, Integer a, Integer b) {
        return sum + a * b;
    }
    static void carry(Integer& low, Integer& high) {
        high += low >> 32;
        low = static_cast<u32>(low);
    }

    // (sum − k·q)/R
    static Word finish(const Sum& s, const Mod& m) { return s.high - high(s.low * m.inverse, m.q); }
};

}  // namespace
}  // namespace lattice
