// Residues as ⌈log2 q⌉-bit fields: lattice.fhe.serialise.bits.
#pragma once

#include <vector>

#include "bundle.hpp"

namespace suite {

std::size_t packed_bytes(const Moduli& moduli, std::size_t n);

// [limbs, n] appended to `out`; n is a multiple of 64.
void pack(std::vector<std::uint8_t>& out, const u64* poly, const Moduli& moduli, std::size_t n);

// Takes a packed polynomial from the front of `bytes`. std::runtime_error if they are too few, or a residue is not below
// its prime.
void unpack(u64* out, Bytes& bytes, const Moduli& moduli, std::size_t n);

// One limb, as `unpack`.
void unpack_limb(u64* out, Bytes& bytes, u64 q, std::size_t n);

// The first bytes, taken off; std::runtime_error if there are too few.
Bytes take(Bytes& bytes, std::size_t count);

}  // namespace suite
