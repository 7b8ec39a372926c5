// Compile-time bookkeeping of lazy residues: how far each value of a butterfly pass may lie outside [0, q), and so
// where a reduction is needed and where it may be left out.
#pragma once

#include <cstddef>
#include <utility>

namespace lattice {
namespace {

// A value x with low·q ≤ x < high·q (or strictly between, where low is negative).
struct Range {
    int low, high;
    constexpr int width() const { return high - low; }
    constexpr int reach() const { return high > -low ? high : -low; }
};

// Calls f(constant<0>), …, f(constant<Count − 1>): a loop whose index is a constant, so that arrays of registers
// stay registers.
template <int Value>
struct Constant {
    static constexpr int value = Value;
    constexpr operator int() const { return Value; }
};

template <int Count, class F>
[[gnu::always_inline]] inline void static_for(F&& f) {
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (f(Constant<I>{}), ...);
    }(std::make_integer_sequence<int, Count>{});
}

// One conditional subtraction (or, below zero, addition) of k·q that halves the range. Works on unsigned minima, in
// which a negative number counts as huge.
struct Fold {
    int k;       // 0: nothing to do
    bool lift;   // add instead of subtract
    Range after;
};

constexpr Fold fold_of(Range x) {
    if (x.low < 0) {
        const int k = -x.low;
        return {k, true, {0, x.high > k ? x.high : k}};
    }
    const int k = (x.high + 1) / 2;
    return {k, false, {0, k}};
}

template <class V, int K, bool Lift>
[[gnu::always_inline]] inline typename V::Word fold(typename V::Word x, const typename V::Mod& m) {
    if constexpr (V::kSigned) {
        return V::centre(x, m);
    } else if constexpr (Lift) {
        return V::smaller(x, V::add(x, m.times(K)));
    } else {
        return V::smaller(x, V::sub(x, m.times(K)));
    }
}

// From [0, High·q) (or, for signed lanes, anything) to [0, q).
template <class V, int High>
[[gnu::always_inline]] inline typename V::Word canonical(typename V::Word x, const typename V::Mod& m) {
    if constexpr (V::kSigned) {
        return V::canonical(x, m);
    } else if constexpr (High <= 1) {
        return x;
    } else {
        constexpr int k = (High + 1) / 2;
        return canonical<V, k>(fold<V, k, false>(x, m), m);
    }
}

}  // namespace
}  // namespace lattice
