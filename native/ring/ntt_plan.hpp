// Where the reductions go inside one pass of butterflies, worked out at compile time from ring/ranges.hpp.
#pragma once

#include "ring/ranges.hpp"

namespace lattice {
namespace {

// What every value is between two passes of the forward transform, and of the inverse one.
template <class V>
constexpr Range forward_range() {
    return V::kSigned ? Range{-V::kHeadroom, V::kHeadroom} : Range{0, V::kHeadroom};
}
template <class V>
constexpr Range inverse_range() {
    if (V::kSigned) return {-V::kHeadroom / 2, V::kHeadroom / 2};
    return {0, V::kHeadroom == 4 ? 2 : 4};
}

// One forward butterfly: (x, y) → (x + w·y, x − w·y).
struct ForwardStep {
    Fold fold{0, false, {0, 0}};  // of x, first
    int shift = 0;                // multiple of q added to x, then
};

// Would x ± a product leave the range that can be multiplied?
template <class V>
constexpr bool must_fold(Range x) {
    return V::kSigned ? x.reach() + 1 > V::kHeadroom : x.width() + 2 > V::kHeadroom;
}

// `multiplied`: both results must be fit to be multiplied next, so must not be negative where that matters.
template <class V>
constexpr ForwardStep plan_forward(Range& x, Range& y, bool multiplied) {
    ForwardStep step;
    if (must_fold<V>(x)) {
        step.fold = fold_of(x);
        x = V::kSigned ? Range{-1, 1} : step.fold.after;
    }
    const Range next{x.low - 1, x.high + 1};
    if (!V::kSigned && (multiplied || must_fold<V>(next))) step.shift = -next.low;
    y = x = {next.low + step.shift, next.high + step.shift};
    return step;
}

template <class V, int Log>
struct ForwardPlan {
    ForwardStep step[Log][1 << (Log - 1)];

    constexpr ForwardPlan(Range in = forward_range<V>()) : step{} {
        Range range[1 << Log] = {};
        for (Range& r : range) r = in;
        for (int level = 0; level < Log; ++level) {
            const int half = 1 << (Log - 1 - level);
            for (int pair = 0; pair < 1 << (Log - 1); ++pair) {
                const int x = pair / half * 2 * half + pair % half;
                const bool multiplied = level == Log - 1 || (x & (half / 2)) != 0;
                step[level][pair] = plan_forward<V>(range[x], range[x + half], multiplied);
            }
        }
    }
};

// One inverse butterfly: (x, y) → (x + y, (y − x)·w), where w is the negated inverse of the forward factor.
struct InverseStep {
    Fold fold_x{0, false, {0, 0}}, fold_y{0, false, {0, 0}};
    int shift = 0;  // multiple of q added to the difference, so that it is positive
};

template <class V>
constexpr InverseStep plan_inverse(Range& x, Range& y) {
    InverseStep step;
    const auto fold_one = [](Range& r) {
        Fold f = fold_of(r);
        r = V::kSigned ? Range{-1, 1} : f.after;
        return f;
    };
    while ((V::kSigned ? x.reach() + y.reach() : x.high + y.high) > V::kHeadroom) {
        if (x.reach() >= y.reach()) {
            step.fold_x = fold_one(x);
        } else {
            step.fold_y = fold_one(y);
        }
    }
    step.shift = V::kSigned ? 0 : x.high;
    x = {x.low + y.low, x.high + y.high};
    y = V::kSigned ? Range{-1, 1} : Range{0, 2};
    return step;
}

template <class V, int Log>
struct InversePlan {
    InverseStep step[Log][1 << (Log - 1)];
    Range out[1 << Log];

    constexpr InversePlan(Range in = inverse_range<V>()) : step{}, out{} {
        for (Range& r : out) r = in;
        for (int level = 0; level < Log; ++level) {
            const int half = 1 << level;
            for (int pair = 0; pair < 1 << (Log - 1); ++pair) {
                const int x = pair / half * 2 * half + pair % half;
                step[level][pair] = plan_inverse<V>(out[x], out[x + half]);
            }
        }
    }
};

// How log_n levels are cut into passes: first[0] over the columns of the whole ring, the others over the columns of ever
// smaller blocks, and a last one (kTailLog levels, not listed) over a few registers' worth of neighbours.
struct Schedule {
    int count;
    int log[8];
};

template <class V>
constexpr Schedule make_schedule(int log_n) {
    Schedule s{0, {}};
    int rest = log_n - V::kTailLog;
    if (V::kMaxLog == 4) {
        // Measured (Zen 5, 48 KB of first-level cache). Rows of a power of two apart share cache sets, so wide passes
        // over long columns lose; the widest goes last.
        constexpr int best[10][4] = {{0}, {1}, {2}, {3}, {4}, {2, 3}, {2, 4}, {3, 4}, {2, 2, 4}, {3, 2, 4}};
        if (rest < 10) {
            while (s.count < 4 && best[rest][s.count] != 0) {
                s.log[s.count] = best[rest][s.count];
                ++s.count;
            }
            return s;
        }
    }
    if (rest % V::kMaxLog != 0) s.log[s.count++] = rest % V::kMaxLog;
    while (s.count < (rest + V::kMaxLog - 1) / V::kMaxLog) s.log[s.count++] = V::kMaxLog;
    return s;
}

}  // namespace
}  // namespace lattice
