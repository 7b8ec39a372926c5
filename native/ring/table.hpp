// Twiddle factors of one prime and one ring degree, ready for one instruction set. Built once, kept for ever.
#pragma once

#include "base/cpu.hpp"
#include "base/memory.hpp"
#include "ring/modulus.hpp"

namespace lattice {

struct Kernels;

// Factor k = m + i (m a power of two, i < m) belongs to block i of the level that has m blocks: ψ^{bitrev(k)}. The
// halves of a Factor are kept in two arrays, so that the last levels can load a vector of consecutive ones.
struct Twiddles {
    const u64* first;
    const u64* second;
};

struct NttTable {
    Modulus modulus;
    int log_n;
    u64 root;          // ψ
    u64 last_twiddle;  // of the last inverse level, which has one block
    const Kernels* kernels;
    Twiddles forward;  // powers of ψ
    Twiddles inverse;  // powers of ψ^{-1}
    Factor unscale;       // N^{-1}
    Factor unscale_last;  // N^{-1} times the only factor of the last inverse level

    std::size_t n() const { return std::size_t{1} << log_n; }

    Buffer storage;
};

// Throws std::invalid_argument unless q is an odd number below 2^50 with q ≡ 1 (mod 2N) that has such a root.
const NttTable& ntt_table(u64 q, int log_n, Isa isa);
inline const NttTable& ntt_table(u64 q, int log_n) { return ntt_table(q, log_n, current_isa()); }

Modulus make_modulus(u64 q, Isa isa);

}  // namespace lattice
