// Sums of products with plaintexts that are read once: Σ_t weight_t ⊙ (b_t, a_t).
#pragma once

#include "ring/fused.hpp"

namespace lattice {
namespace {

constexpr std::size_t kMostWeightedTerms = 4096;

// Each term of residues adds less than 1/4 to the range, so that eight of them can be multiplied by R.
template <class V, int Count>
void weighted_terms(const WeightedSum& s, std::size_t from, bool add, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto to_plain = V::factor(modulus.to_plain);
    const auto put = [&](u64* at, const typename V::Sum& sum) __attribute__((always_inline)) {
        auto x = canonical<V, 2>(V::product_any(V::finish(sum, m), to_plain, m), m);
        if (add) x = canonical<V, 2>(V::add(x, residue<V>(at)), m);
        V::store(at, V::to_residue(x));
    };
    for (std::size_t i = 0; i < n; i += V::kLanes) {
        auto b = V::no_sum();
        auto a = V::no_sum();
        static_for<Count>([&](auto t) __attribute__((always_inline)) {
            const auto weight = V::as_term(residue<V>(s.weights[from + t] + i), m);
            V::accumulate(b, weight, residue<V>(s.b[from + t] + i), m);
            V::accumulate(a, weight, residue<V>(s.a[from + t] + i), m);
        });
        put(s.out_b + i, b);
        put(s.out_a + i, a);
    }
}

// Sums of one block of positions, kept while terms come by.
constexpr std::size_t kWeightedBlock = 256;
template <class V>
struct WeightedBlock {
    alignas(64) u64 low[2][kWeightedBlock], high[2][kWeightedBlock];

    typename V::Sum load(int half, std::size_t i) const {
        return {V::load(low[half] + i), V::load(high[half] + i)};
    }
    void store(int half, std::size_t i, const typename V::Sum& sum) {
        V::store(low[half] + i, sum.low);
        V::store(high[half] + i, sum.high);
    }
};

// Count terms at [start, start + length). Weights come from main memory, often at distances that are powers of two,
// which share cache sets: so few are read at a time, and those of the next terms are fetched meanwhile.
template <class V, int Count>
void weighted_few(const WeightedSum& s, WeightedBlock<V>& block, std::size_t from, bool first, std::size_t start,
                  std::size_t length, const typename V::Mod& m) {
    const u64* weights[Count];
    const u64* b[Count];
    const u64* a[Count];
    const u64* next[Count];
    for (int t = 0; t < Count; ++t) {
        weights[t] = s.weights[from + t] + start;
        b[t] = s.b[from + t] + start;
        a[t] = s.a[from + t] + start;
        next[t] = from + t + Count < s.count ? s.weights[from + t + Count] + start : weights[t] + length;
    }
    for (std::size_t i = 0; i < length; i += V::kLanes) {
        auto sum_b = first ? V::no_sum() : block.load(0, i);
        auto sum_a = first ? V::no_sum() : block.load(1, i);
        static_for<Count>([&](auto t) __attribute__((always_inline)) {
            if (i % 8 == 0) __builtin_prefetch(next[t] + i);
            const auto weight = residue<V>(weights[t] + i);
            V::accumulate(sum_b, weight, residue<V>(b[t] + i), m);
            V::accumulate(sum_a, weight, residue<V>(a[t] + i), m);
        });
        block.store(0, i, sum_b);
        block.store(1, i, sum_a);
    }
}

// Terms [from, to) with one reduction, for lanes whose sums have room.
template <class V>
void weighted_run(const WeightedSum& s, std::size_t from, std::size_t to, bool add, std::size_t start,
                  std::size_t length, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto to_plain = V::factor(modulus.to_plain);
    WeightedBlock<V> block;
    std::size_t at = from;
    for (; at + 4 <= to; at += 4) weighted_few<V, 4>(s, block, at, at == from, start, length, m);
    for (; at < to; ++at) weighted_few<V, 1>(s, block, at, at == from, start, length, m);
    for (int half = 0; half < 2; ++half) {
        u64* out = (half == 0 ? s.out_b : s.out_a) + start;
        for (std::size_t i = 0; i < length; i += V::kLanes) {
            auto x = canonical<V, 2>(V::product_any(V::finish(block.load(half, i), m), to_plain, m), m);
            if (add) x = canonical<V, 2>(V::add(x, residue<V>(out + i)), m);
            V::store(out + i, V::to_residue(x));
        }
    }
}

// So many terms, each of which adds q/R, keep a finished sum within what can be multiplied.
template <class V>
inline std::size_t term_limit(const Modulus& modulus) {
    const double terms = (V::kHeadroom - 2) / (modulus.real * V::kTermReach);
    return terms < kMostWeightedTerms ? static_cast<std::size_t>(terms) : kMostWeightedTerms;
}

template <class V>
void weighted_sum(const WeightedSum& s, std::size_t n, const Modulus& modulus) {
    if constexpr (!V::kSigned) {
        const std::size_t limit = term_limit<V>(modulus);
        const std::size_t block = n < kWeightedBlock ? n : kWeightedBlock;
        for (std::size_t start = 0; start < n; start += block) {
            for (std::size_t from = 0; from < s.count; from += limit) {
                const std::size_t to = s.count - from < limit ? s.count : from + limit;
                weighted_run<V>(s, from, to, s.add || from != 0, start, block, modulus);
            }
        }
        for (std::size_t i = 0; s.count == 0 && !s.add && i < n; ++i) s.out_b[i] = s.out_a[i] = 0;
        return;
    }
    for (std::size_t from = 0; from < s.count; from += kMostTerms) {
        const std::size_t terms = s.count - from < kMostTerms ? s.count - from : kMostTerms;
        with_count(terms, [&](auto count) { weighted_terms<V, count>(s, from, s.add || from != 0, n, modulus); });
    }
    for (std::size_t i = 0; s.count == 0 && !s.add && i < n; ++i) s.out_b[i] = s.out_a[i] = 0;
}

}  // namespace
}  // namespace lattice
