// Matrix products with numbers: a tile of Σ_i w[a, i]·x[i, position], where every position of a tile has the same weights.
// Products are added up as plain integers, in registers, and reduced once: primes below 2^30 leave room for it.
#pragma once

#include "ring/pointwise.hpp"

namespace lattice {
namespace {

// The residue of any 128-bit number.
class Reduction128 {
  public:
    explicit Reduction128(const Modulus& m)
        : q_(m.value), inverse_(m.inverse), square_(static_cast<u64>(static_cast<u128>(r()) * r() % q_)) {}

    u64 operator()(u128 x) const {
        const u64 high = static_cast<u64>(x >> 64) % q_;
        return montgomery(static_cast<u128>(montgomery((static_cast<u128>(high) << 64) | static_cast<u64>(x))) * square_);
    }

  private:
    u64 r() const { return static_cast<u64>((static_cast<u128>(1) << 64) % q_); }
    // x/2^64, for x below q·2^64.
    u64 montgomery(u128 x) const {
        const u64 k = static_cast<u64>(x) * inverse_;
        const u64 high = static_cast<u64>(x >> 64), less = static_cast<u64>((static_cast<u128>(k) * q_) >> 64);
        return high >= less ? high - less : high + q_ - less;
    }
    u64 q_, inverse_, square_;
};

// How many products of two residues fit into 64 bits, after a carry.
inline std::size_t products_in_64(u64 q) {
    const u128 room = (static_cast<u128>(1) << 64) - (u64{1} << 32);  // a carried sum has 32 bits
    const u128 terms = room / (static_cast<u128>(q - 1) * (q - 1));
    return terms > kMostPeriodicTerms ? kMostPeriodicTerms : static_cast<std::size_t>(terms);
}

// From low + 2^32·high.
template <class V, bool kCarries, int Outs, int Vectors>
[[gnu::always_inline]] inline void put_narrow(const PeriodicTile& t, std::size_t at,
                                              const typename V::Integer (&low)[Outs][Vectors],
                                              const typename V::Integer (&high)[Outs][Vectors], const Modulus& modulus) {
    if constexpr (V::kSigned || V::kLanes == 1) {
        const Reduction128 reduce(modulus);
        u64 lows[V::kLanes], highs[V::kLanes];
        for (int a = 0; a < Outs; ++a) {
            for (int p = 0; p < Vectors; ++p) {
                V::store_integers(lows, low[a][p]);
                V::store_integers(highs, high[a][p]);
                for (int lane = 0; lane < V::kLanes; ++lane) {
                    u64& out = t.out[a][at + p * V::kLanes + lane];
                    out = reduce((static_cast<u128>(highs[lane]) << 32) + lows[lane] + (t.add ? out : 0));
                }
            }
        }
    } else {
        const typename V::Mod m(modulus);
        const auto to_plain = V::factor(modulus.to_plain);
        const auto times_high = V::factor(t.high_factor);
        for (int a = 0; a < Outs; ++a) {
            for (int p = 0; p < Vectors; ++p) {
                u64* out = t.out[a] + at + p * V::kLanes;
                auto x = reduced<V, 2>(V::product_any(V::finish({low[a][p], V::zero()}, m), to_plain, m), m);
                if constexpr (kCarries) {
                    const auto y = V::product_any(V::finish({high[a][p], V::zero()}, m), times_high, m);
                    x = reduced<V, 3>(V::add(x, y), m);
                }
                V::store(out, t.add ? reduced<V, 2>(V::add(x, residue<V>(out)), m) : x);
            }
        }
    }
}

// Primes below 2^30. kTiny: below 2^26, so that a product has 52 bits. kCarries: 64 bits do not hold the sum.
template <class V, bool kTiny, bool kCarries>
void periodic_narrow(const PeriodicTile& t, const Modulus& modulus) {
    constexpr int Outs = kPeriodicOuts, Vectors = V::kPeriodicVectors;
    using Integer = typename V::Integer;
    const std::size_t run = products_in_64(modulus.value);
    for (std::size_t at = 0; at < kPeriodicTile; at += Vectors * V::kLanes) {
        const u32* x = static_cast<const u32*>(t.x) + at;
        Integer low[Outs][Vectors], high[Outs][Vectors];
        static_for<Outs * Vectors>([&](auto k) __attribute__((always_inline)) {
            low[k / Vectors][k % Vectors] = high[k / Vectors][k % Vectors] = V::no_integers();
        });
        for (std::size_t from = 0; from < t.count; from += run) {
            const std::size_t to = t.count - from < run ? t.count : from + run;
            for (std::size_t i = from; i < to; ++i) {
                Integer values[Vectors];
                static_for<Vectors>([&](auto p) __attribute__((always_inline)) {
                    values[p] = V::widened(x + i * kPeriodicTile + p * V::kLanes);
                });
                static_for<Outs>([&](auto a) __attribute__((always_inline)) {
                    const Integer w = V::integers(t.weights + i * Outs + a);
                    static_for<Vectors>([&](auto p) __attribute__((always_inline)) {
                        low[a][p] = V::template integer_product<kTiny>(low[a][p], values[p], w);
                    });
                });
            }
            if (!kCarries || to == t.count) break;
            static_for<Outs * Vectors>([&](auto k) __attribute__((always_inline)) {
                V::carry(low[k / Vectors][k % Vectors], high[k / Vectors][k % Vectors]);
            });
        }
        put_narrow<V, kCarries, Outs, Vectors>(t, at, low, high, modulus);
    }
}

// Larger primes, one 128-bit sum at a time.
template <class V>
void periodic_by_words(const PeriodicTile& t, const Modulus& modulus) {
    const Reduction128 reduce(modulus);
    const u64* weights = t.weights;
    for (int a = 0; a < kPeriodicOuts; ++a) {
        for (std::size_t at = 0; at < kPeriodicTile; ++at) {
            const u64* x = static_cast<const u64*>(t.x) + at;
            u128 sum = t.add ? t.out[a][at] : 0;
            for (std::size_t i = 0; i < t.count; ++i) {
                sum += static_cast<u128>(x[i * kPeriodicTile]) * weights[i * kPeriodicOuts + a];
            }
            t.out[a][at] = reduce(sum);
        }
    }
}

// The same in lanes that have sums of two halves.
template <class V>
void periodic_by_halves(const PeriodicTile& t, const Modulus& modulus) {
    constexpr int Outs = kPeriodicOuts / 2, Vectors = V::kPeriodicVectors;
    const typename V::Mod m(modulus);
    const auto times_low = V::factor(modulus.to_plain), times_high = V::factor(t.high_factor);
    for (int half = 0; half < 2; ++half) {
        for (std::size_t at = 0; at < kPeriodicTile; at += Vectors * V::kLanes) {
            const u64* x = static_cast<const u64*>(t.x) + at;
            const u64* weights = t.weights + half * Outs;
            typename V::Sum sums[Outs][Vectors];
            static_for<Outs * Vectors>([&](auto k) __attribute__((always_inline)) {
                sums[k / Vectors][k % Vectors] = V::no_sum();
            });
            for (std::size_t i = 0; i < t.count; ++i) {
                typename V::Word values[Vectors];
                static_for<Vectors>([&](auto p) __attribute__((always_inline)) {
                    values[p] = V::load(x + i * kPeriodicTile + p * V::kLanes);
                });
                static_for<Outs>([&](auto a) __attribute__((always_inline)) {
                    const auto w = V::splat(weights[i * kPeriodicOuts + a]);
                    static_for<Vectors>([&](auto p) __attribute__((always_inline)) {
                        V::accumulate(sums[a][p], values[p], w, m);
                    });
                });
            }
            static_for<Outs * Vectors>([&](auto k) __attribute__((always_inline)) {
                const auto& sum = sums[k / Vectors][k % Vectors];
                u64* out = t.out[half * Outs + k / Vectors] + at + k % Vectors * V::kLanes;
                auto x = reduced<V, 2>(V::product_any(V::finish({sum.low, V::zero()}, m), times_low, m), m);
                const auto y = V::product_any(V::finish({sum.high, V::zero()}, m), times_high, m);
                x = reduced<V, 3>(V::add(x, y), m);
                V::store(out, t.add ? reduced<V, 2>(V::add(x, residue<V>(out)), m) : x);
            });
        }
    }
}

template <class V>
void periodic_tile(const PeriodicTile& t, const Modulus& modulus) {
    if (!periodic_is_narrow(modulus.value)) {
        if constexpr (V::kLanes == 1 || V::kSigned) {
            periodic_by_words<V>(t, modulus);
        } else {
            periodic_by_halves<V>(t, modulus);
        }
    } else if (modulus.value >> 26 == 0) {
        periodic_narrow<V, true, false>(t, modulus);
    } else if (t.count <= products_in_64(modulus.value)) {
        periodic_narrow<V, false, false>(t, modulus);
    } else {
        periodic_narrow<V, false, true>(t, modulus);
    }
}

}  // namespace
}  // namespace lattice
