// The work done inside one residue ring, as a table of functions per instruction set. Everything above this border is
// the same code for all of them; everything below it is exact, so the choice never shows in a result.
#pragma once

#include <cstddef>

#include "base/cpu.hpp"
#include "ring/table.hpp"

namespace lattice {

struct Kernels {
    // Residues in, residues out; dst may be src.
    void (*forward)(u64* dst, const u64* src, const NttTable& table);
    void (*inverse)(u64* dst, const u64* src, const NttTable& table);

    void (*add)(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*sub)(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*neg)(u64* dst, const u64* a, std::size_t n, const Modulus& m);
    void (*mul)(u64* dst, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*mul_add)(u64* dst, const u64* acc, const u64* a, const u64* b, std::size_t n, const Modulus& m);
    void (*mul_scalar)(u64* dst, const u64* a, const Factor& w, std::size_t n, const Modulus& m);

    Factor (*encode)(u64 w, const Modulus& m);
    int radix_bits;      // sums of products come out of "finish" divided by 2^radix_bits
    int lanes;
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
