// Kernels that do more than one thing to a value while it is in a register: what makes a key switch cheap.
#pragma once

#include "ring/kernels.hpp"
#include "ring/ntt.hpp"
#include "ring/permutation.hpp"
#include "ring/pointwise.hpp"

namespace lattice {
namespace {

// Residues of σ(data): vectors are read from where the automorphism takes them.
template <class V>
struct PermutedResidues {
    const u64* data;
    const Permutation* by;
    [[gnu::always_inline]] typename V::Word operator()(std::size_t i) const {
        return V::from_residue(V::load_permuted(data, by->source[i / V::kLanes], by->patterns));
    }
};

// ---- out of NTT form, ready for base conversion ----

// y = value mod q, then z = (y + ⌊q/2⌋) mod q, so that converting z and subtracting a constant converts y centred.
template <class V>
struct ToCentred {
    u64* data;
    u64 half;
    template <int High>
    [[gnu::always_inline]] void put(std::size_t i, typename V::Word x, const typename V::Mod& m) const {
        const auto y = canonical<V, High>(x, m);
        V::store(data + i, V::to_residue(canonical<V, 2>(V::add(y, V::splat(half)), m)));
    }
};

template <class V>
void inverse_centred(u64* dst, const u64* src, const NttTable& table, const Factor& sum, const Factor& difference) {
    const ToCentred<V> sink{dst, table.modulus.value / 2};
    inverse_ntt<V>(dst, table, sum, difference, Residues<V>{src}, sink);
}

// The same for coefficients: y = x·factor.
template <class V>
void scale_centred(u64* dst, const u64* src, const Factor& factor, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const ToCentred<V> sink{dst, modulus.value / 2};
    const auto f = V::factor(factor);
    for (std::size_t i = 0; i < n; i += V::kLanes) {
        sink.template put<2>(i, V::product_any(residue<V>(src + i), f, m), m);
    }
}

// ---- base conversion ----

// Σ_j z_j·w_j − C modulo p for Count source primes. Each term adds less than 1/4 (z < 2^50) to the range, and the constant is
// 2p − C; so up to eight terms stay below 4p.
constexpr int kMostTerms = 8;

template <class V, int Count>
struct Converted {
    const u64* const* z;
    const u64* weights;
    u64 constant;
    const typename V::Mod& m;
    [[gnu::always_inline]] typename V::Word operator()(std::size_t i) const {
        auto sum = V::no_sum();
        static_for<Count>([&](auto j) __attribute__((always_inline)) {
            V::accumulate(sum, residue<V>(z[j] + i), V::splat(weights[j]), m);
        });
        return V::add(V::finish(sum, m), V::splat(constant));
    }
};

template <class Call>
void with_count(std::size_t count, Call call) {
    switch (count) {
        case 1: return call(Constant<1>{});
        case 2: return call(Constant<2>{});
        case 3: return call(Constant<3>{});
        case 4: return call(Constant<4>{});
        case 5: return call(Constant<5>{});
        case 6: return call(Constant<6>{});
        case 7: return call(Constant<7>{});
        case 8: return call(Constant<8>{});
        default: __builtin_trap();  // callers split longer sums
    }
}

template <class V>
void convert_all(u64* dst, const Conversion& c, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    for (std::size_t from = 0; from < c.count; from += kMostTerms) {
        const std::size_t terms = c.count - from < kMostTerms ? c.count - from : kMostTerms;
        const u64 constant = from == 0 ? 2 * modulus.value - c.offset : 2 * modulus.value;
        with_count(terms, [&](auto count) {
            const Converted<V, count> source{c.z + from, c.weights + from, constant, m};
            for (std::size_t i = 0; i < n; i += V::kLanes) {
                auto x = canonical<V, 4>(source(i), m);
                if (from != 0) x = canonical<V, 2>(V::add(x, residue<V>(dst + i)), m);
                V::store(dst + i, V::to_residue(x));
            }
        });
    }
}

// Converts while the first pass of a forward transform reads.
template <class V>
void forward_converted(u64* dst, const Conversion& c, const NttTable& table) {
    if (c.count > kMostTerms) {
        convert_all<V>(dst, c, table.n(), table.modulus);
        forward_first<V>(dst, table, Residues<V>{dst});
    } else {
        const typename V::Mod m(table.modulus);
        with_count(c.count, [&](auto count) {
            forward_first<V>(dst, table, Converted<V, count>{c.z, c.weights, 2 * table.modulus.value - c.offset, m});
        });
    }
    forward_outer<V>(dst, table);
}

// ---- the rest of a forward transform, leaf by leaf ----

// Keeps results as they are: fit to be multiplied, and nothing else.
template <class V>
struct ToLazies {
    u64* data;
    template <int High>
    [[gnu::always_inline]] void put(std::size_t i, typename V::Word x, const typename V::Mod& m) const {
        V::store(data + i, V::as_term(x, m));
    }
};

template <class V>
void leaf_to_lazies(u64* data, std::size_t leaf, const NttTable& table) {
    forward_leaf<V>(data, leaf, table, ToLazies<V>{data});
}

template <class V>
void leaf_to_residues(u64* data, std::size_t leaf, const NttTable& table) {
    forward_leaf<V>(data, leaf, table, ToResidues<V>{data});
}

// (x − r)·factor + addend, where r is what the transform yields: the end of ModDown and of rescaling.
template <class V, class Addend>
struct ToQuotient {
    u64* dst;
    const u64* x;
    typename V::Mul factor;
    Addend addend;
    template <int High>
    [[gnu::always_inline]] void put(std::size_t i, typename V::Word r, const typename V::Mod& m) const {
        constexpr bool folds = !V::kSigned && High + 1 > V::kHeadroom;
        constexpr Fold f = fold_of({0, High});
        if constexpr (folds) r = fold<V, f.k, f.lift>(r, m);
        auto difference = residue<V>(x + i);
        if constexpr (!V::kSigned) difference = V::add(difference, m.times(folds ? f.after.high : High));
        auto y = lazy_product<V>(V::sub(difference, r), factor, m);
        if constexpr (Addend::kThere) y = V::add(y, addend(i));
        V::store(dst + i, V::to_residue(canonical<V, Addend::kThere ? 3 : 2>(y, m)));
    }
};

template <class V>
struct NoAddend {
    static constexpr bool kThere = false;
};
template <class V, template <class> class Source>
struct SomeAddend : Source<V> {
    static constexpr bool kThere = true;
};

template <class V>
void leaf_to_quotient(u64* dst, u64* r, std::size_t leaf, const NttTable& table, const u64* x, const Factor& factor,
                      const Addend& addend, const Ahead& ahead) {
    const auto f = V::factor(factor);
    if (addend.data == nullptr) {
        forward_leaf<V>(r, leaf, table, ToQuotient<V, NoAddend<V>>{dst, x, f, {}}, ahead);
    } else if (addend.by == nullptr) {
        forward_leaf<V>(r, leaf, table, ToQuotient<V, SomeAddend<V, Residues>>{dst, x, f, {{addend.data}}}, ahead);
    } else {
        const std::size_t size = std::size_t{1} << leaf_log(table.log_n);
        fetch(addend.data + addend.by->source_of(leaf * size) / size * size, size);  // to be read out of order
        using Permuted = SomeAddend<V, PermutedResidues>;
        forward_leaf<V>(r, leaf, table, ToQuotient<V, Permuted>{dst, x, f, {{addend.data, addend.by}}}, ahead);
    }
}

// ---- gadget product ----

// For both halves, Σ_d σ(digit_d)·key_d over positions [start, start + length), divided by R, accumulated in registers:
// every key word is read once. Digits are lazy (below 2^52 or, for signed lanes, what as_term makes of them), so each term adds less
// than q: Count terms end in (−q, Count·q).
template <class V, int Count, bool kPermuted, bool kMore>
[[gnu::always_inline]] inline void gadget_terms(const GadgetProduct& g, std::size_t from, std::size_t start,
                                                std::size_t length, const typename V::Mod& m) {
    constexpr int High = V::kSigned ? 1 : Count + 1;
    const u64* digits[Count];
    const u64* key_b[Count];
    const u64* key_a[Count];
    for (int d = 0; d < Count; ++d) {
        digits[d] = g.digits[from + d];
        key_b[d] = g.key_b[from + d];
        key_a[d] = g.key_a[from + d];
    }
    for (std::size_t i = start; i < start + length; i += V::kLanes) {
        auto b = V::no_sum();
        auto a = V::no_sum();
        u32 where = 0;
        if constexpr (kPermuted) where = g.by->source[i / V::kLanes];
        static_for<Count>([&](auto d) __attribute__((always_inline)) {
            typename V::Word x;
            if constexpr (kPermuted) {
                x = V::load_permuted(digits[d], where, g.by->patterns);
            } else {
                x = V::load(digits[d] + i);
            }
            V::accumulate(b, x, residue<V>(key_b[d] + i), m);
            V::accumulate(a, x, residue<V>(key_a[d] + i), m);
        });
        auto out_b = V::finish(b, m);
        auto out_a = V::finish(a, m);
        if constexpr (!V::kSigned) {
            out_b = V::add(out_b, m.times(1));
            out_a = V::add(out_a, m.times(1));
        }
        out_b = canonical<V, High>(out_b, m);
        out_a = canonical<V, High>(out_a, m);
        if constexpr (kMore) {
            out_b = canonical<V, 2>(V::add(out_b, residue<V>(g.out_b + i)), m);
            out_a = canonical<V, 2>(V::add(out_a, residue<V>(g.out_a + i)), m);
        }
        V::store(g.out_b + i, V::to_residue(out_b));
        V::store(g.out_a + i, V::to_residue(out_a));
    }
}

template <class V>
void gadget_range(const GadgetProduct& g, std::size_t start, std::size_t length, const typename V::Mod& m) {
    for (std::size_t from = 0; from < g.count; from += kMostTerms) {
        const std::size_t terms = g.count - from < kMostTerms ? g.count - from : kMostTerms;
        with_count(terms, [&](auto count) {
            const bool more = from != 0 || g.add;
            if (g.by == nullptr) {
                more ? gadget_terms<V, count, false, true>(g, from, start, length, m)
                     : gadget_terms<V, count, false, false>(g, from, start, length, m);
            } else {
                more ? gadget_terms<V, count, true, true>(g, from, start, length, m)
                     : gadget_terms<V, count, true, false>(g, from, start, length, m);
            }
        });
    }
}

template <class V>
void gadget(const GadgetProduct& g, std::size_t start, std::size_t length, const Modulus& modulus) {
    gadget_range<V>(g, start, length, typename V::Mod(modulus));
}

// Keys are read once and come from main memory; so the next chunk's are fetched while this one's digits are transformed.
// So is what comes next of the digits, whose order a permutation makes hard to guess for the processor. Without
// transforms there is nothing to hide this behind, and fetching would only cost instructions.
template <class V>
void leaf_of_products(const GadgetProduct& g, u64* const* work, std::size_t leaf, const NttTable& table) {
    const typename V::Mod m(table.modulus);
    const std::size_t size = std::size_t{1} << leaf_log(table.log_n);
    if (work == nullptr) return gadget_range<V>(g, leaf * size, size, m);
    const std::size_t chunk = size < kChunk ? size : kChunk;
    const auto source = [&](std::size_t at) { return g.by == nullptr ? at : g.by->source_of(at); };
    for (std::size_t d = 0; d < g.count; ++d) {
        if (work[d] != nullptr) forward_inner<V>(work[d], source(leaf * size) / size, table, m);
    }
    const std::size_t next_leaf = (leaf + 1) * size < table.n() ? source((leaf + 1) * size) / size * size : 0;
    for (std::size_t at = leaf * size; at < (leaf + 1) * size; at += chunk) {
        const std::size_t from = source(at) / chunk * chunk;
        const std::size_t next = at + chunk < table.n() ? source(at + chunk) / chunk * chunk : 0;
        for (std::size_t d = 0; d < g.count; ++d) {
            fetch(g.key_b[d] + at + chunk, chunk);
            fetch(g.key_a[d] + at + chunk, chunk);
            if (work[d] != nullptr) {
                fetch(work[d] + next_leaf + at % size, chunk);
                forward_tails<V>(work[d], from, from + chunk, table, m, ToLazies<V>{work[d]});
            } else if (g.by != nullptr) {
                fetch(g.digits[d] + next, chunk);
            }
        }
        gadget_range<V>(g, at, chunk, m);
    }
}

// Residues in the form in which digits are kept.
template <class V>
void to_lazies(u64* dst, const u64* src, std::size_t start, std::size_t length, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    for (std::size_t i = start; i < start + length; i += V::kLanes) {
        V::store(dst + i, V::as_term(residue<V>(src + i), m));
    }
}

template <class V>
void add_permuted(u64* dst, const Addend& src, const Factor* factor, std::size_t start, std::size_t length,
                  const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto f = factor == nullptr ? typename V::Mul{} : V::factor(*factor);
    for (std::size_t i = start; i < start + length; i += V::kLanes) {
        auto x = src.by == nullptr ? residue<V>(src.data + i) : PermutedResidues<V>{src.data, src.by}(i);
        if (factor != nullptr) x = V::product_any(x, f, m);
        V::store(dst + i, reduced<V, 3>(V::add(x, residue<V>(dst + i)), m));
    }
}

template <class V>
void permute_all(u64* dst, const u64* src, const Permutation& by, std::size_t n) {
    for (std::size_t i = 0; i < n; i += V::kLanes) {
        V::store(dst + i, V::load_permuted(src, by.source[i / V::kLanes], by.patterns));
    }
}

// (a0, a1)·(b0, b1) without relinearisation.
template <class V>
void tensor_all(u64* const dst[3], const u64* const a[2], const u64* const b[2], std::size_t n,
                const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto to_plain = V::factor(modulus.to_plain);
    const auto put = [&](u64* at, const typename V::Sum& sum) __attribute__((always_inline)) {
        V::store(at, reduced<V, 2>(V::product_any(V::finish(sum, m), to_plain, m), m));
    };
    for (std::size_t i = 0; i < n; i += V::kLanes) {
        const auto a0 = residue<V>(a[0] + i), a1 = residue<V>(a[1] + i);
        const auto b0 = residue<V>(b[0] + i), b1 = residue<V>(b[1] + i);
        auto low = V::no_sum(), mid = V::no_sum(), high = V::no_sum();
        V::accumulate(low, a0, b0, m);
        V::accumulate(mid, a0, b1, m);
        V::accumulate(mid, a1, b0, m);
        V::accumulate(high, a1, b1, m);
        put(dst[0] + i, low);
        put(dst[1] + i, mid);
        put(dst[2] + i, high);
    }
}

}  // namespace
}  // namespace lattice
