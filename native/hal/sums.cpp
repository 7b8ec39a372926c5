#include "hal/sums.hpp"

#include <algorithm>

#include "base/pool.hpp"
#include "hal/scratch.hpp"

namespace lattice {
namespace {

constexpr std::size_t kInputsAhead = 4;  // ciphertexts lie far apart: fetch before they are wanted
constexpr std::size_t kCacheWords = std::size_t{1} << 16;  // half of a second-level cache of a megabyte

// ---- plaintexts in full ----

struct PlainSum {
    const Tables& tables;
    const std::vector<u64*>& out;
    const Ciphertexts& in;
    const std::vector<const u64*>& plain;
    const SumTerms& terms;
    std::size_t n, chunk;

    // Rows that are powers of two apart share cache sets, so the ciphertexts of one chunk are first brought together.
    void run_chunk(std::size_t limb, std::size_t start) const {
        u64* x = scratch().rest.require((in.data.size() * in.components + 1) * chunk);
        u64* unused = x + in.data.size() * in.components * chunk;
        for (std::size_t i = 0; i < in.data.size(); ++i) {
            for (std::size_t k = 0; k < in.components; ++k) {
                const u64* from = in.data[i] + (k * tables.size() + limb) * n + start;
                std::copy(from, from + chunk, x + (i * in.components + k) * chunk);
            }
        }
        for (std::size_t a = 0; a < out.size(); ++a) {
            for (std::size_t k = 0; k < in.components; k += 2) {
                const bool both = k + 1 < in.components;
                u64* to = out[a] + (k * tables.size() + limb) * n + start;
                one_sum(limb, start, terms[a], x + k * chunk, x + (both ? k + 1 : k) * chunk, to,
                        both ? to + tables.size() * n : unused);
            }
        }
    }

    void one_sum(std::size_t limb, std::size_t start, const std::vector<std::pair<std::size_t, std::size_t>>& pairs,
                 const u64* x_b, const u64* x_a, u64* to_b, u64* to_a) const {
        PointerList<const u64*> weights, b, a;
        bool add = false;
        const auto flush = [&] {
            const WeightedSum sum{to_b, to_a, weights.begin(), b.begin(), a.begin(), weights.size(), add};
            tables[limb]->kernels->weighted_sum(sum, chunk, tables[limb]->modulus);
            weights = b = a = {};
            add = true;
        };
        for (const auto& [i, d] : pairs) {
            weights.push(plain[d] + limb * n + start);
            b.push(x_b + i * in.components * chunk);
            a.push(x_a + i * in.components * chunk);
            if (weights.size() == kMostLimbs) flush();
        }
        if (weights.size() != 0 || !add) flush();
    }
};

std::size_t chunk_for(std::size_t rows, std::size_t n, std::size_t least) {
    std::size_t chunk = n;
    while (chunk > least && rows * chunk > kCacheWords) chunk /= 2;
    return chunk;
}

// ---- repeating plaintexts ----

// One prime; `Word` is u32 or u64, which the ciphertexts are brought together as. Weights are brought into the order [value][tile of results][input][result].
template <class Word>
struct PeriodicSum {
    const Tables& tables;
    const std::vector<u64*>& out;
    const Ciphertexts& in;
    const u64* weights;
    std::size_t values, limb, n, inputs, tiles, chunk;
    Factor high_factor;
    Buffer packed;
    Buffer read;  // one component of all inputs, where they come from a source

    PeriodicSum(const Tables& all, const std::vector<u64*>& to, const Ciphertexts& from, const u64* w,
                std::size_t distinct, std::size_t of_limb)
        : tables(all), out(to), in(from), weights(w), values(distinct), limb(of_limb), n(all[0]->n()),
          inputs(in.size()), tiles((out.size() + kPeriodicOuts - 1) / kPeriodicOuts),
          chunk(std::min(n / values, chunk_for(inputs * sizeof(Word) / sizeof(u64), n, kPeriodicTile))),
          packed(values * tiles * inputs * kPeriodicOuts) {
        const NttTable& table = *tables[limb];
        const u64 q = table.modulus.value;
        const int bits = periodic_is_narrow(q) ? 32 : table.kernels->radix_bits;
        high_factor = table.kernels->encode(mul_mod(table.modulus.radix, pow_mod(2, bits, q), q), table.modulus);
    }

    void run() {
        parallel(tiles, [&](std::size_t tile) { pack_weights(tile); });
        const std::size_t chunks = n / chunk;
        if (in.source == nullptr) {
            parallel(in.components * chunks, [&](std::size_t item) { run_chunk(item / chunks, item % chunks * chunk); });
            return;
        }
        read = Buffer(inputs * row_stride());
        for (std::size_t component = 0; component < in.components; ++component) {
            for (std::size_t i = 0; i < inputs; ++i) {
                in.source->read(read.data() + i * row_stride(), in.numbers[i], component, limb);
            }
            parallel(chunks, [&](std::size_t item) { run_chunk(component, item * chunk); });
        }
    }

    // Rows a power of two apart would share cache sets.
    std::size_t row_stride() const { return n + 17 * 8; }

    const u64* row(std::size_t i, std::size_t component) const {
        return in.source != nullptr ? read.data() + i * row_stride() : in.data[i] + (component * tables.size() + limb) * n;
    }

    u64* weights_at(std::size_t value, std::size_t tile) const {
        return packed.data() + (value * tiles + tile) * inputs * kPeriodicOuts;
    }

    void pack_weights(std::size_t tile) const {
        for (std::size_t i = 0; i < inputs; ++i) {
            for (std::size_t r = 0; r < kPeriodicOuts; ++r) {
                const std::size_t a = tile * kPeriodicOuts + r;
                const u64* from = weights + ((a * inputs + i) * tables.size() + limb) * values;
                for (std::size_t v = 0; v < values; ++v) {
                    weights_at(v, tile)[i * kPeriodicOuts + r] = a < out.size() ? from[v] : 0;
                }
            }
        }
    }

    // All results at `chunk` positions of one component, which share their weights.
    void run_chunk(std::size_t component, std::size_t start) const {
        const std::size_t offset = (component * tables.size() + limb) * n + start;
        Word* x = reinterpret_cast<Word*>(scratch().rest.require(inputs * chunk));
        for (std::size_t i = 0; i < inputs; ++i) {
            const u64* from = row(i, component) + start;
            const u64* later = row(std::min(i + kInputsAhead, inputs - 1), component) + start;
            for (std::size_t tile = 0; tile < chunk / kPeriodicTile; ++tile) {
                Word* to = x + (tile * inputs + i) * kPeriodicTile;
                for (std::size_t p = 0; p < kPeriodicTile; p += 8) __builtin_prefetch(later + tile * kPeriodicTile + p);
                for (std::size_t p = 0; p < kPeriodicTile; ++p) {
                    to[p] = static_cast<Word>(from[tile * kPeriodicTile + p]);
                }
            }
        }
        for (std::size_t tile = 0; tile < tiles; ++tile) {
            const u64* w = weights_at(start / (n / values), tile);
            for (std::size_t p = 0; p < chunk; p += kPeriodicTile) run_tile(tile, w, x + p * inputs, offset + p);
        }
    }

    void run_tile(std::size_t tile, const u64* w, const Word* x, std::size_t offset) const {
        u64 unused[kPeriodicTile];
        u64* to[kPeriodicOuts];
        for (std::size_t r = 0; r < kPeriodicOuts; ++r) {
            const std::size_t a = tile * kPeriodicOuts + r;
            to[r] = a < out.size() ? out[a] + offset : unused;
        }
        for (std::size_t from = 0; from < inputs; from += kMostPeriodicTerms) {
            const std::size_t count = std::min(kMostPeriodicTerms, inputs - from);
            const PeriodicTile job{to,    x + from * kPeriodicTile, w + from * kPeriodicOuts, count, high_factor, from != 0};
            tables[limb]->kernels->periodic_tile(job, tables[limb]->modulus);
        }
    }
};

// Runs shorter than a tile: each weight is written out.
void sum_short_runs(const Tables& tables, const std::vector<u64*>& out, const Ciphertexts& in, const u64* weights,
                    std::size_t values) {
    const std::size_t n = tables[0]->n(), limbs = tables.size();
    parallel(out.size() * limbs, [&](std::size_t item) {
        const std::size_t a = item / limbs, limb = item % limbs;
        const NttTable& table = *tables[limb];
        u64* full = scratch().rest.require(n);
        for (std::size_t i = 0; i < in.data.size(); ++i) {
            const u64* w = weights + ((a * in.data.size() + i) * limbs + limb) * values;
            for (std::size_t p = 0; p < n; ++p) full[p] = w[p / (n / values)];
            for (std::size_t k = 0; k < in.components; ++k) {
                u64* to = out[a] + (k * limbs + limb) * n;
                const u64* x = in.data[i] + (k * limbs + limb) * n;
                if (i == 0) {
                    table.kernels->mul(to, x, full, n, table.modulus);
                } else {
                    table.kernels->mul_add(to, to, x, full, n, table.modulus);
                }
            }
        }
    });
}

}  // namespace

void sum_plain(const Tables& tables, const std::vector<u64*>& out, const Ciphertexts& in,
               const std::vector<const u64*>& plain, const SumTerms& terms) {
    const std::size_t n = tables[0]->n();
    const std::size_t chunk = chunk_for(in.data.size() * in.components, n, 64);
    const PlainSum sum{tables, out, in, plain, terms, n, chunk};
    const std::size_t chunks = n / chunk;
    parallel(tables.size() * chunks, [&](std::size_t item) { sum.run_chunk(item / chunks, item % chunks * chunk); });
}

bool reads_rows(const Tables& tables, std::size_t values) {
    bool tiny = tables[0]->n() / values < kPeriodicTile;
    for (const NttTable* table : tables) tiny = tiny || table->modulus.value < kLeastPeriodicModulus;
    return !tiny;
}

void sum_periodic(const Tables& tables, const std::vector<u64*>& out, const Ciphertexts& in, const u64* weights,
                  std::size_t values) {
    if (!reads_rows(tables, values)) return sum_short_runs(tables, out, in, weights, values);
    for (std::size_t limb = 0; limb < tables.size(); ++limb) {
        if (periodic_is_narrow(tables[limb]->modulus.value)) {
            PeriodicSum<u32>(tables, out, in, weights, values, limb).run();
        } else {
            PeriodicSum<u64>(tables, out, in, weights, values, limb).run();
        }
    }
}

}  // namespace lattice
