// Elementwise arithmetic on residues of one prime, written once for all lanes. n is a multiple of the lanes.
#pragma once

#include "ring/ranges.hpp"

namespace lattice {
namespace {

template <class V, class F>
[[gnu::always_inline]] inline void each(u64* dst, std::size_t n, F f) {
    for (std::size_t i = 0; i < n; i += V::kLanes) V::store(dst + i, f(i));
}

template <class V>
[[gnu::always_inline]] inline typename V::Word residue(const u64* p) {
    return V::from_residue(V::load(p));
}

template <class V, int High>
[[gnu::always_inline]] inline typename V::Word reduced(typename V::Word x, const typename V::Mod& m) {
    return V::to_residue(canonical<V, High>(x, m));
}

// A product of two residues in (−q, 2q), shifted into [0, 3q).
template <class V>
[[gnu::always_inline]] inline typename V::Word residue_product(typename V::Word a, typename V::Word b,
                                                               typename V::Mul to_plain, const typename V::Mod& m) {
    auto sum = V::no_sum();
    V::accumulate(sum, a, b, m);
    return V::product_any(V::finish(sum, m), to_plain, m);
}

template <class V>
void add_all(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    each<V>(dst, n, [&](std::size_t i) { return reduced<V, 2>(V::add(residue<V>(a + i), residue<V>(b + i)), m); });
}

template <class V>
void sub_all(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    each<V>(dst, n, [&](std::size_t i) {
        const auto x = V::add(residue<V>(a + i), m.times(1));
        return reduced<V, 2>(V::sub(x, residue<V>(b + i)), m);
    });
}

template <class V>
void neg_all(u64* dst, const u64* a, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    each<V>(dst, n, [&](std::size_t i) { return reduced<V, 2>(V::sub(m.times(1), residue<V>(a + i)), m); });
}

template <class V>
void mul_all(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto to_plain = V::factor(modulus.to_plain);
    each<V>(dst, n, [&](std::size_t i) {
        return reduced<V, 2>(residue_product<V>(residue<V>(a + i), residue<V>(b + i), to_plain, m), m);
    });
}

template <class V>
void mul_add_all(u64* dst, const u64* acc, const u64* a, const u64* b, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto to_plain = V::factor(modulus.to_plain);
    each<V>(dst, n, [&](std::size_t i) {
        const auto x = residue_product<V>(residue<V>(a + i), residue<V>(b + i), to_plain, m);
        return reduced<V, 3>(V::add(x, residue<V>(acc + i)), m);
    });
}

template <class V>
void mul_sub_all(u64* dst, const u64* acc, const u64* a, const u64* b, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto to_plain = V::factor(modulus.to_plain);
    each<V>(dst, n, [&](std::size_t i) {
        const auto x = residue_product<V>(residue<V>(a + i), residue<V>(b + i), to_plain, m);
        return reduced<V, 4>(V::sub(V::add(residue<V>(acc + i), m.times(3)), x), m);
    });
}

template <class V>
void mul_scalar_all(u64* dst, const u64* a, const Factor& w, std::size_t n, const Modulus& modulus) {
    const typename V::Mod m(modulus);
    const auto f = V::factor(w);
    each<V>(dst, n, [&](std::size_t i) { return reduced<V, 2>(V::product_any(residue<V>(a + i), f, m), m); });
}

}  // namespace
}  // namespace lattice
