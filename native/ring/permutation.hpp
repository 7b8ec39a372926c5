// Automorphisms X → X^g on evaluations: they only move positions, and in bit-reversed order whole vectors of lanes
// stay together. So one is a table of one word per vector, applied while another kernel reads its operand.
#pragma once

#include "base/cpu.hpp"
#include "base/memory.hpp"

namespace lattice {

// Vector J of the result is vector source[J] >> log_lanes of the operand, with its lanes in the order of pattern
// source[J] & (lanes − 1). Leaves (aligned runs of positions) move as wholes too.
struct Permutation {
    const u32* source;
    const u64* patterns;  // [lanes][lanes]: where each lane of the result comes from
    int log_lanes;

    std::size_t source_of(std::size_t position) const {
        const u64 word = source[position >> log_lanes];
        const u64 lane = position & ((1u << log_lanes) - 1);
        return (word & ~u64{(1u << log_lanes) - 1}) + patterns[((word & ((1u << log_lanes) - 1)) << log_lanes) + lane];
    }

    Buffer storage;
};

// g must be odd and below 2N (else std::invalid_argument). Built once per g, kept for ever.
const Permutation& permutation(u64 g, int log_n, Isa isa);
inline const Permutation& permutation(u64 g, int log_n) { return permutation(g, log_n, current_isa()); }

}  // namespace lattice
