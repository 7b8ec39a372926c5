// The negacyclic number-theoretic transform, written once for all lanes.
//
// Forward: decimation in time (Cooley–Tukey butterflies), natural order in, bit-reversed out. Inverse: decimation in
// frequency (Gentleman–Sande), the other way round. ψ is merged into the twiddle factors (Longa, Naehrig 2016).
// Levels are grouped into passes that keep 2^Log values in registers, so that data move through the caches
// log_n/Log times instead of log_n times.
//
// A Source says where a pass gets its values, a Sink what becomes of the results; fused kernels plug in their own.
#pragma once

#include "ring/kernels.hpp"
#include "ring/ntt_plan.hpp"
#include "ring/table.hpp"

namespace lattice {
namespace {

// Keeps the compiler from loading twiddle factors ahead of the loop: there are more of them than registers, and a
// broadcasting load is free where a reload from the stack is not.
[[gnu::always_inline]] inline Twiddles fresh(Twiddles w) {
    __asm__ volatile("" : "+r"(w.first), "+r"(w.second));
    return w;
}

// Plain residues from memory.
template <class V>
struct Residues {
    const u64* data;
    [[gnu::always_inline]] typename V::Word operator()(std::size_t i) const {
        return V::from_residue(V::load(data + i));
    }
};

// What an earlier pass left.
template <class V>
struct Lazies {
    const u64* data;
    [[gnu::always_inline]] typename V::Word operator()(std::size_t i) const { return V::load(data + i); }
};

// Stores fully reduced results.
template <class V>
struct ToResidues {
    u64* data;
    template <int High>
    [[gnu::always_inline]] void put(std::size_t i, typename V::Word x, const typename V::Mod& m) const {
        V::store(data + i, V::to_residue(canonical<V, High>(x, m)));
    }
};

template <class V, class Plan, const Plan& kPlan, int Log, int Level>
[[gnu::always_inline]] inline void forward_level(typename V::Word* x, const typename V::Mod& m, Twiddles w) {
    constexpr int half = 1 << (Log - 1 - Level);
    static_for<(1 << (Log - 1))>([&](auto pair) __attribute__((always_inline)) {
        constexpr int group = pair / half;
        constexpr int a = group * 2 * half + pair % half;
        constexpr ForwardStep step = kPlan.step[Level][pair];
        const auto f = V::factor(w.first + group, w.second + group);
        if constexpr (step.fold.k != 0) x[a] = fold<V, step.fold.k, step.fold.lift>(x[a], m);
        if constexpr (step.shift != 0) x[a] = V::add(x[a], m.times(step.shift));
        V::butterfly(x[a], x[a + half], f, m);
    });
}

template <class V, int Log>
inline constexpr ForwardPlan<V, Log> kForwardPlan{};

// Log levels on 2^Log registers; `block` is m + i of the first level.
template <class V, int Log>
[[gnu::always_inline]] inline void forward_registers(typename V::Word* x, std::size_t block, Twiddles w,
                                                     const typename V::Mod& m) {
    static_for<Log>([&](auto level) __attribute__((always_inline)) {
        const Twiddles here{w.first + (block << level), w.second + (block << level)};
        forward_level<V, ForwardPlan<V, Log>, kForwardPlan<V, Log>, Log, level>(x, m, here);
    });
}

// One pass over the columns of a block whose 2^Log rows are `stride` words long.
template <class V, int Log, class Source>
[[gnu::always_inline]] inline void forward_columns(u64* dst, std::size_t stride, std::size_t block, Twiddles w,
                                                   const typename V::Mod& m, Source source) {
    for (std::size_t column = 0; column < stride; column += V::kLanes) {
        typename V::Word x[1 << Log];
        static_for<(1 << Log)>([&](auto r) __attribute__((always_inline)) { x[r] = source(r * stride + column); });
        forward_registers<V, Log>(x, block, fresh(w), m);
        static_for<(1 << Log)>(
            [&](auto r) __attribute__((always_inline)) { V::store(dst + r * stride + column, x[r]); });
    }
}

// The last levels work inside registers: two registers are perfectly shuffled, so that partners meet, once a level.
template <class V, int Level, int High>
[[gnu::always_inline]] inline void forward_lanes(typename V::Word& a, typename V::Word& b, std::size_t block,
                                                 Twiddles w, const typename V::Mod& m) {
    constexpr Range in = V::kSigned ? Range{-High, High} : Range{0, High};
    constexpr bool folds = must_fold<V>(in);
    constexpr Fold f = fold_of(in);
    auto x = V::shuffle_low(a, b);
    auto y = V::shuffle_high(a, b);
    const auto factor = V::template lane_factors<(2 << Level)>(w, block, m);
    if constexpr (folds) x = fold<V, f.k, f.lift>(x, m);
    if constexpr (!V::kSigned) x = V::add(x, m.times(1));
    V::butterfly(x, y, factor, m);
    a = x;
    b = y;
}

template <class V>
constexpr int lanes_high(int high) {
    const Range in = V::kSigned ? Range{-high, high} : Range{0, high};
    if (V::kSigned) return (must_fold<V>(in) ? 1 : high) + 1;
    return (must_fold<V>(in) ? fold_of(in).after.high : high) + 2;
}

// Level by level over all registers rather than register by register: the processor's window is too small to find
// other work while one register goes through three levels.
template <class V, int Level, int High, int Log, class Done>
[[gnu::always_inline]] inline void forward_lanes_all(typename V::Word* x, std::size_t block, Twiddles w,
                                                     const typename V::Mod& m, Done done) {
    constexpr int pairs = 1 << (Log - 1);
    if constexpr (Level < V::kLogLanes) {
        static_for<pairs>([&](auto pair) __attribute__((always_inline)) {
            const std::size_t inner = ((block << Log) + 2 * pair) << Level;
            forward_lanes<V, Level, High>(x[2 * pair], x[2 * pair + 1], inner, w, m);
        });
        forward_lanes_all<V, Level + 1, lanes_high<V>(High), Log>(x, block, w, m, done);
    } else {
        static_for<pairs>([&](auto pair) __attribute__((always_inline)) {
            auto& a = x[2 * pair];
            auto& b = x[2 * pair + 1];
            if constexpr (V::kLogLanes > 0) {
                const auto low = V::shuffle_low(a, b);
                b = V::shuffle_high(a, b);
                a = low;
            }
            done.template operator()<High>(2 * pair, a);
            done.template operator()<High>(2 * pair + 1, b);
        });
    }
}

// The last kTailLog levels of one group of neighbours. `at` is where the group starts in the ring, for the sink.
template <class V, class Source, class Sink>
[[gnu::always_inline]] inline void forward_tail(std::size_t at, std::size_t block, Twiddles w,
                                                const typename V::Mod& m, Source source, Sink sink) {
    constexpr int Log = V::kTailLog - V::kLogLanes;
    typename V::Word x[1 << Log];
    static_for<(1 << Log)>([&](auto r) __attribute__((always_inline)) { x[r] = source(at + r * V::kLanes); });
    forward_registers<V, Log>(x, block, w, m);
    const auto done = [&]<int High>(std::size_t r, typename V::Word value) __attribute__((always_inline)) {
        sink.template put<High>(at + r * V::kLanes, value, m);
    };
    forward_lanes_all<V, 0, V::kHeadroom, Log>(x, block, w, m, done);
}

template <class V, class Call>
[[gnu::always_inline]] inline void with_log(int log, Call call) {
    if (log == 1) call(Constant<1>{});
    if constexpr (V::kMaxLog >= 2) if (log == 2) call(Constant<2>{});
    if constexpr (V::kMaxLog >= 3) if (log == 3) call(Constant<3>{});
    if constexpr (V::kMaxLog >= 4) if (log == 4) call(Constant<4>{});
}

// A leaf is the unit in which later passes are done from first to last while the data stay in the first-level cache,
// and after which fused kernels take over.
constexpr int kLeafLog = 11;
constexpr int leaf_log(int log_n) { return log_n < kLeafLog ? log_n : kLeafLog; }

// The first pass, from anywhere to dst.
template <class V, class Source>
inline void forward_first(u64* dst, const NttTable& table, Source source) {
    const typename V::Mod m(table.modulus);
    with_log<V>(make_schedule<V>(table.log_n).log[0], [&](auto log) {
        forward_columns<V, log>(dst, table.n() >> log, 1, table.twiddles, m, source);
    });
}

// One pass, in place, over words [start, end), cut into blocks of 2^length_log words each.
template <class V>
inline void forward_pass(u64* data, std::size_t start, std::size_t end, int log_now, int length_log,
                         const NttTable& table, const typename V::Mod& m) {
    const std::size_t first_block = table.n() >> length_log;
    for (std::size_t at = start; at < end; at += std::size_t{1} << length_log) {
        u64* here = data + at;
        const std::size_t block = first_block + (at >> length_log);
        with_log<V>(log_now, [&](auto log) {
            forward_columns<V, log>(here, std::size_t{1} << (length_log - log), block, table.twiddles, m,
                                    Lazies<V>{here});
        });
    }
}

// The passes after the first whose blocks are larger than a leaf.
template <class V>
inline void forward_outer(u64* data, const NttTable& table) {
    const typename V::Mod m(table.modulus);
    const Schedule schedule = make_schedule<V>(table.log_n);
    int length_log = table.log_n - schedule.log[0];
    for (int pass = 1; pass < schedule.count && length_log > leaf_log(table.log_n); ++pass) {
        forward_pass<V>(data, 0, table.n(), schedule.log[pass], length_log, table, m);
        length_log -= schedule.log[pass];
    }
}

[[gnu::always_inline]] inline void fetch(const u64* data, std::size_t words) {
    for (std::size_t i = 0; i < words; i += 8) __builtin_prefetch(data + i, 0, 2);
}

// The remaining passes but the last on one leaf, in place.
template <class V>
inline void forward_inner(u64* data, std::size_t leaf, const NttTable& table, const typename V::Mod& m) {
    const Schedule schedule = make_schedule<V>(table.log_n);
    const int size_log = leaf_log(table.log_n);
    const std::size_t start = leaf << size_log;
    int length_log = table.log_n - schedule.log[0];
    for (int pass = 1; pass < schedule.count; ++pass) {
        if (length_log <= size_log) {
            const std::size_t end = start + (std::size_t{1} << size_log);
            forward_pass<V>(data, start, end, schedule.log[pass], length_log, table, m);
        }
        length_log -= schedule.log[pass];
    }
}

// The last pass over words [start, end), into the sink.
template <class V, class Sink>
[[gnu::always_inline]] inline void forward_tails(u64* data, std::size_t start, std::size_t end, const NttTable& table,
                                                 const typename V::Mod& m, Sink sink) {
    constexpr std::size_t size = std::size_t{1} << V::kTailLog;
    const std::size_t first_block = table.n() / size;
    for (std::size_t at = start; at < end; at += size) {
        forward_tail<V>(at, first_block + at / size, table.twiddles, m, Lazies<V>{data}, sink);
    }
}

// Fused kernels turn to what follows after this many words, which are then still in the first-level cache.
constexpr std::size_t kChunk = 128;

template <class V, class Sink>
inline void forward_leaf(u64* data, std::size_t leaf, const NttTable& table, Sink sink, const Ahead& ahead = {}) {
    const typename V::Mod m(table.modulus);
    forward_inner<V>(data, leaf, table, m);
    const std::size_t size = std::size_t{1} << leaf_log(table.log_n);
    const std::size_t chunk = size < kChunk ? size : kChunk;
    for (std::size_t at = leaf * size; at < (leaf + 1) * size; at += chunk) {
        for (std::size_t a = 0; a < ahead.count; ++a) fetch(ahead.arrays[a] + at % size, chunk);
        forward_tails<V>(data, at, at + chunk, table, m, sink);
    }
}

template <class V>
void forward_ntt(u64* dst, const u64* src, const NttTable& table) {
    forward_first<V>(dst, table, Residues<V>{src});
    forward_outer<V>(dst, table);
    const std::size_t leaves = table.n() >> leaf_log(table.log_n);
    for (std::size_t leaf = 0; leaf < leaves; ++leaf) forward_leaf<V>(dst, leaf, table, ToResidues<V>{dst});
}

// ---- inverse ----

template <class V, int Log>
inline constexpr InversePlan<V, Log> kInversePlan{};
template <class V>
constexpr int inverse_lanes_high(int high);

// From residues through the lanes, the registers' values have this range.
template <class V>
constexpr Range inverse_after_lanes() {
    int high = 1;
    for (int level = 0; level < V::kLogLanes; ++level) high = inverse_lanes_high<V>(high);
    return V::kSigned ? Range{-high, high} : Range{0, high};
}

template <class V, int Log>
inline constexpr InversePlan<V, Log> kInverseTailPlan{inverse_after_lanes<V>()};

// The mirror image of factor number k among those of its level.
[[gnu::always_inline]] inline std::size_t mirrored(std::size_t k, std::size_t level_blocks) {
    return 3 * level_blocks - 1 - k;
}

// Sum and shifted difference, before the difference is multiplied.
template <class V, InverseStep step>
[[gnu::always_inline]] inline void inverse_halves(typename V::Word& x, typename V::Word& y, const typename V::Mod& m) {
    auto u = x;
    auto v = y;
    if constexpr (step.fold_x.k != 0) u = fold<V, step.fold_x.k, step.fold_x.lift>(u, m);
    if constexpr (step.fold_y.k != 0) v = fold<V, step.fold_y.k, step.fold_y.lift>(v, m);
    x = V::add(u, v);
    if constexpr (step.shift != 0) v = V::add(v, m.times(step.shift));
    y = V::sub(v, u);
}

template <class V>
[[gnu::always_inline]] inline typename V::Word lazy_product(typename V::Word y, typename V::Mul f,
                                                            const typename V::Mod& m) {
    if constexpr (V::kSigned) {
        return V::product(y, f, m);
    } else {
        return V::product_up(y, f, m);
    }
}

template <class V, class Plan, const Plan& kPlan, int Log, int Level>
[[gnu::always_inline]] inline void inverse_level(typename V::Word* x, const typename V::Mod& m, Twiddles w) {
    constexpr int half = 1 << Level;
    static_for<(1 << (Log - 1))>([&](auto pair) __attribute__((always_inline)) {
        constexpr int group = pair / half;
        constexpr int a = group * 2 * half + pair % half;
        inverse_halves<V, kPlan.step[Level][pair]>(x[a], x[a + half], m);
        x[a + half] = lazy_product<V>(x[a + half], V::factor(w.first - group, w.second - group), m);
    });
}

// Log levels on 2^Log registers; `block` is m + i of the last (widest) level, which has m = `blocks`.
template <class V, int Log, class Plan, const Plan& kPlan, int Levels = Log>
[[gnu::always_inline]] inline void inverse_registers(typename V::Word* x, std::size_t block, std::size_t blocks,
                                                     Twiddles w, const typename V::Mod& m) {
    static_for<Levels>([&](auto level) __attribute__((always_inline)) {
        constexpr int finer = Log - 1 - level;
        const std::size_t at = mirrored(block << finer, blocks << finer);
        inverse_level<V, Plan, kPlan, Log, level>(x, m, Twiddles{w.first + at, w.second + at});
    });
}

// Brings a value into the range that passes agree on.
template <class V, Range Have>
[[gnu::always_inline]] inline typename V::Word settle(typename V::Word x, const typename V::Mod& m) {
    constexpr Range want = inverse_range<V>();
    if constexpr (V::kSigned ? Have.reach() > want.reach() : Have.high > want.high) {
        constexpr Fold f = fold_of(Have);
        return settle<V, V::kSigned ? Range{-1, 1} : f.after>(fold<V, f.k, f.lift>(x, m), m);
    } else {
        return x;
    }
}

template <class V, class Plan, const Plan& kPlan, int Log>
[[gnu::always_inline]] inline void settle_all(typename V::Word* x, const typename V::Mod& m) {
    static_for<(1 << Log)>(
        [&](auto r) __attribute__((always_inline)) { x[r] = settle<V, kPlan.out[r]>(x[r], m); });
}

template <class V>
constexpr bool folds_sum(int sum) {
    return 2 * sum > V::kHeadroom;
}
template <class V>
constexpr int inverse_lanes_high(int high) {
    const int sum = 2 * high;
    const int folded = !folds_sum<V>(sum) ? sum : (V::kSigned ? 1 : (sum + 1) / 2);
    const int product = V::kSigned ? 1 : 2;
    return folded > product ? folded : product;
}

// The first levels, inside registers: even and odd words are partners.
template <class V, int Level, int High>
[[gnu::always_inline]] inline void inverse_lanes(typename V::Word& a, typename V::Word& b, std::size_t block,
                                                 std::size_t blocks, Twiddles w, const typename V::Mod& m) {
    constexpr int group = V::kLanes >> Level;
    const auto factors = V::template lane_factors<group>(w, mirrored(block + group - 1, blocks), m);
    if constexpr (Level == 0) {
        V::unshuffle_first(a, b);
    } else {
        V::unshuffle(a, b);
    }
    const auto x = a;
    const auto y = b;
    a = V::add(x, y);
    if constexpr (folds_sum<V>(2 * High)) a = fold<V, High, false>(a, m);
    if constexpr (V::kSigned) {
        b = V::product(V::sub(y, x), factors, m);
    } else {
        b = V::product_up(V::sub(V::add(y, m.times(High)), x), factors, m);
    }
}

template <class V, int Level, int High, int Log>
[[gnu::always_inline]] inline void inverse_lanes_all(typename V::Word* x, std::size_t block, std::size_t blocks,
                                                     Twiddles w, const typename V::Mod& m) {
    constexpr int pairs = 1 << (Log - 1);
    if constexpr (Level < V::kLogLanes) {
        constexpr int finer = V::kLogLanes - 1 - Level;
        static_for<pairs>([&](auto pair) __attribute__((always_inline)) {
            const std::size_t inner = ((block << Log) + 2 * pair) << finer;
            inverse_lanes<V, Level, High>(x[2 * pair], x[2 * pair + 1], inner, blocks << (Log + finer), w, m);
        });
        inverse_lanes_all<V, Level + 1, inverse_lanes_high<V>(High), Log>(x, block, blocks, w, m);
    } else if constexpr (V::kLogLanes > 0) {
        static_for<pairs>([&](auto pair)
                              __attribute__((always_inline)) { V::unshuffle_last(x[2 * pair], x[2 * pair + 1]); });
    }
}

template <class V, class Source>
[[gnu::always_inline]] inline void inverse_tail(u64* dst, std::size_t at, std::size_t block, std::size_t blocks,
                                                Twiddles w, const typename V::Mod& m, Source source) {
    constexpr int Log = V::kTailLog - V::kLogLanes;
    using Plan = InversePlan<V, Log>;
    typename V::Word x[1 << Log];
    static_for<(1 << Log)>([&](auto r) __attribute__((always_inline)) { x[r] = source(at + r * V::kLanes); });
    inverse_lanes_all<V, 0, 1, Log>(x, block, blocks, w, m);
    inverse_registers<V, Log, Plan, kInverseTailPlan<V, Log>>(x, block, blocks, w, m);
    settle_all<V, Plan, kInverseTailPlan<V, Log>, Log>(x, m);
    static_for<(1 << Log)>(
        [&](auto r) __attribute__((always_inline)) { V::store(dst + at + r * V::kLanes, x[r]); });
}

template <class V, int Log>
[[gnu::always_inline]] inline void inverse_columns(u64* data, std::size_t stride, std::size_t block,
                                                   std::size_t blocks, Twiddles w, const typename V::Mod& m) {
    using Plan = InversePlan<V, Log>;
    for (std::size_t column = 0; column < stride; column += V::kLanes) {
        typename V::Word x[1 << Log];
        static_for<(1 << Log)>(
            [&](auto r) __attribute__((always_inline)) { x[r] = V::load(data + r * stride + column); });
        inverse_registers<V, Log, Plan, kInversePlan<V, Log>>(x, block, blocks, fresh(w), m);
        settle_all<V, Plan, kInversePlan<V, Log>, Log>(x, m);
        static_for<(1 << Log)>(
            [&](auto r) __attribute__((always_inline)) { V::store(data + r * stride + column, x[r]); });
    }
}

// The last pass multiplies everything by a constant: `sum` for sums and `difference`, which includes the twiddle
// factor of the last level, for differences.
template <class V, int Log, class Sink>
[[gnu::always_inline]] inline void inverse_last_columns(const u64* data, std::size_t stride, Twiddles w, Factor sum,
                                                        Factor difference, const typename V::Mod& m, Sink sink) {
    using Plan = InversePlan<V, Log>;
    constexpr int half = 1 << (Log - 1);
    const auto f_sum = V::factor(sum);
    const auto f_difference = V::factor(difference);
    for (std::size_t column = 0; column < stride; column += V::kLanes) {
        typename V::Word x[1 << Log];
        static_for<(1 << Log)>(
            [&](auto r) __attribute__((always_inline)) { x[r] = V::load(data + r * stride + column); });
        inverse_registers<V, Log, Plan, kInversePlan<V, Log>, Log - 1>(x, 1, 1, fresh(w), m);
        static_for<half>([&](auto r) __attribute__((always_inline)) {
            inverse_halves<V, kInversePlan<V, Log>.step[Log - 1][r]>(x[r], x[r + half], m);
            const auto u = lazy_product<V>(x[r], f_sum, m);
            const auto v = lazy_product<V>(x[r + half], f_difference, m);
            sink.template put<2>(r * stride + column, u, m);
            sink.template put<2>((r + half) * stride + column, v, m);
        });
    }
}

// INTT(source) times a constant, through `work` (which the sink may also write to). The factors are those of
// inverse_last_columns.
template <class V, class Source, class Sink>
inline void inverse_ntt(u64* work, const NttTable& table, Factor sum, Factor difference, Source source, Sink sink) {
    const typename V::Mod m(table.modulus);
    const Schedule schedule = make_schedule<V>(table.log_n);
    const std::size_t n = table.n();
    // Depth first: all but the last pass are done for one block of the last pass after the other.
    const std::size_t size = n >> schedule.log[0];
    for (std::size_t start = 0; start < n; start += size) {
        int length_log = V::kTailLog;
        for (std::size_t at = start; at < start + size; at += std::size_t{1} << length_log) {
            inverse_tail<V>(work, at, (n + at) >> length_log, n >> length_log, table.twiddles, m, source);
        }
        for (int pass = schedule.count - 1; pass > 0; --pass) {
            const int log_now = schedule.log[pass];
            for (std::size_t at = start; at < start + size; at += std::size_t{1} << (length_log + log_now)) {
                const int to_log = length_log + log_now;
                with_log<V>(log_now, [&](auto log) {
                    inverse_columns<V, log>(work + at, std::size_t{1} << length_log, (n + at) >> to_log, n >> to_log,
                                            table.twiddles, m);
                });
            }
            length_log += log_now;
        }
    }
    with_log<V>(schedule.log[0], [&](auto log) {
        inverse_last_columns<V, log>(work, size, table.twiddles, sum, difference, m, sink);
    });
}

template <class V>
void inverse_ntt_plain(u64* dst, const u64* src, const NttTable& table) {
    inverse_ntt<V>(dst, table, table.unscale, table.unscale_last, Residues<V>{src}, ToResidues<V>{dst});
}

}  // namespace
}  // namespace lattice
