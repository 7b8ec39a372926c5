// Twiddle factors of one prime and one ring degree, ready for one instruction set. Built once, kept for ever.
#pragma once

#include "base/cpu.hpp"
#include "base/memory.hpp"
#include "ring/modulus.hpp"

namespace lattice {

struct Kernels;

// Factor k = m + i (m a power of two, i < m) belongs to block i of the level that has m blocks: w_k = ψ^{bitrev(k)}. The
// inverse transform needs no table of its own, because w_{m+i}^{-1} = −w_{m + (m−1−i)}.
//
// The halves of a Factor are kept in two arrays. The second, which follows from the first, is short where lanes would
// rather compute it than read it: big rings live from memory.
struct Twiddles {
    const u64* first;
    const u64* second;
};

struct NttTable {
    Modulus modulus;
    int log_n;
    u64 root;          // ψ
    u64 last_twiddle;  // w_1, which belongs to the one block of the last inverse level
    const Kernels* kernels;
    Twiddles twiddles;
    Factor unscale;       // N^{-1}
    Factor unscale_last;  // N^{-1}·w_1

    std::size_t n() const { return std::size_t{1} << log_n; }

    Buffer storage;
};

// Throws std::invalid_argument unless q is an odd number below 2^50 with q ≡ 1 (mod 2N) that has such a root.
const NttTable& ntt_table(u64 q, int log_n, Isa isa);
inline const NttTable& ntt_table(u64 q, int log_n) { return ntt_table(q, log_n, current_isa()); }

Modulus make_modulus(u64 q, Isa isa);

}  // namespace lattice
