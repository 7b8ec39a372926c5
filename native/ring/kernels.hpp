// The work done inside one residue ring, as a table of functions per instruction set. Everything above this border is
// the same code for all of them; everything below it is exact, so the choice never shows in a result.
#pragma once

#include <cstddef>

#include "base/cpu.hpp"
#include "ring/table.hpp"

namespace lattice {

struct Permutation;

// One target prime of a base conversion: Σ_j z_j·w_j − offset. Weights carry the radix R (Modulus::radix).
struct Conversion {
    const u64* const* z;  // centred residues of the source primes, below 2^50
    std::size_t count;
    const u64* weights;
    u64 offset;
};

// One prime of Σ_d σ(digit_d)·key_d, for the two halves of a key; results are divided by R.
struct GadgetProduct {
    u64* out_b;
    u64* out_a;
    const u64* const* digits;
    const u64* const* key_b;
    const u64* const* key_a;
    std::size_t count;
    const Permutation* by;  // σ, or null
    bool add;               // to what the results hold already
};

// Σ_t weight_t·x_t for pairs of residues x_t = (b_t, a_t) that are sums, divided by R; the results are so too.
struct WeightedSum {
    u64* out_b;
    u64* out_a;
    const u64* const* weights;
    const u64* const* b;
    const u64* const* a;
    std::size_t count;  // none makes zero
    bool add;
};

// One tile of a matrix product with numbers: out[a][p] = Σ_i x[i][p]·weights[i][a], for kPeriodicOuts rows and
// kPeriodicTile positions. x is of u32 where `periodic_is_narrow`, else of u64.
constexpr int kPeriodicOuts = 6;
constexpr std::size_t kPeriodicTile = 32;
constexpr std::size_t kMostPeriodicTerms = 4096;
constexpr u64 kLeastPeriodicModulus = 1 << 13;  // below, sums of high halves might exceed it
inline bool periodic_is_narrow(u64 q) { return q < u64{1} << 30; }
struct PeriodicTile {
    u64* const* out;
    const void* x;
    const u64* weights;
    std::size_t count;   // at most kMostPeriodicTerms
    Factor high_factor;  // R·2^32 where narrow, R·2^radix_bits else
    bool add;
};

// A polynomial to add, perhaps permuted; null data means none.
struct Addend {
    const u64* data = nullptr;
    const Permutation* by = nullptr;
};

// Memory that is wanted soon: `count` arrays, of which a leaf's worth is fetched into the second-level cache while a
// leaf is transformed. Keys are read once and come from main memory; this hides them behind the arithmetic.
struct Ahead {
    const u64* const* arrays = nullptr;
    std::size_t count = 0;
};

struct Kernels {
    // Residues in, residues out; dst may be src.
    void (*forward)(u64* dst, const u64* src, const NttTable& table);
    void (*inverse)(u64* dst, const u64* src, const NttTable& table);

    void (*add)(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*sub)(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*neg)(u64* dst, const u64* a, std::size_t n, const Modulus& m);
    void (*mul)(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*mul_add)(u64* dst, const u64* acc, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*mul_sub)(u64* dst, const u64* acc, const u64* a, const u64* b, std::size_t n, const Modulus& m);  // acc − a·b
    void (*mul_scalar)(u64* dst, const u64* a, const Factor& w, std::size_t n, const Modulus& m);

    void (*from_small)(u64* dst, const std::int8_t* src, std::size_t n, const Modulus& m);  // |src| < q
    void (*centred_binomial)(std::int8_t* dst, const std::uint8_t* bytes, std::size_t n, int eta);

    void (*permute)(u64* dst, const u64* src, const Permutation& by, std::size_t n);
    void (*tensor)(u64* const dst[3], const u64* const a[2], const u64* const b[2], std::size_t n, const Modulus& m);

    // INTT(src) times a constant (given as in table.unscale and table.unscale_last), plus ⌊q/2⌋.
    void (*inverse_centred)(u64* dst, const u64* src, const NttTable& table, const Factor& sum,
                            const Factor& difference);
    void (*scale_centred)(u64* dst, const u64* src, const Factor& factor, std::size_t n, const Modulus& m);
    void (*convert)(u64* dst, const Conversion& c, std::size_t n, const Modulus& m);

    // A forward transform in two parts, with a conversion in front. The second part goes leaf by leaf, and a leaf is a
    // contiguous run of 2^leaf_log positions of the result.
    void (*forward_converted)(u64* dst, const Conversion& c, const NttTable& table);
    void (*leaf_to_residues)(u64* data, std::size_t leaf, const NttTable& table);
    void (*leaf_to_lazies)(u64* data, std::size_t leaf, const NttTable& table);  // digits, for products
    // One leaf of a gadget product. work[d] is digit d's buffer where its transform has leaves to do, and null where it is
    // finished; a null `work` says that all are.
    void (*leaf_of_products)(const GadgetProduct& g, u64* const* work, std::size_t leaf, const NttTable& table);
    // dst = (x − transform of r)·factor + addend
    void (*leaf_to_quotient)(u64* dst, u64* r, std::size_t leaf, const NttTable& table, const u64* x,
                             const Factor& factor, const Addend& addend, const Ahead& ahead);
    void (*to_lazies)(u64* dst, const u64* src, std::size_t start, std::size_t length, const Modulus& m);
    void (*gadget)(const GadgetProduct& g, std::size_t start, std::size_t length, const Modulus& m);

    void (*weighted_sum)(const WeightedSum& sum, std::size_t n, const Modulus& m);
    void (*periodic_tile)(const PeriodicTile& tile, const Modulus& m);
    // dst += σ(src), or factor·σ(src), at positions [start, start + length) of dst
    void (*add_permuted)(u64* dst, const Addend& src, const Factor* factor, std::size_t start, std::size_t length,
                         const Modulus& m);

    void (*embed_slots)(double* real, double* imaginary, int log_slots, const double* twiddles);
    double (*round_reals)(double* x, std::size_t n, double unit, double scale);
    void (*residues_of_reals)(u64* dst, const double* x, std::size_t n, double largest, const Modulus& m);

    int (*leaf_log)(int log_n);
    Factor (*encode)(u64 w, const Modulus& m);
    int radix_bits;      // sums of products come out of "finish" divided by 2^radix_bits
    int lanes;
    bool computes_lane_factors;  // second halves are needed only for the levels above the lanes
    bool residues_are_lazies;  // else digits must go through to_lazies
    int smallest_log_n;  // below this, use the scalar kernels
};

// The right variant for a prime of this size.
const Kernels& kernels_for(u64 q, Isa isa);

const Kernels& scalar_kernels();
#if defined(LATTICE_X86)
const Kernels& avx2_kernels();
const Kernels& ifma_kernels(u64 q);
#endif

}  // namespace lattice
