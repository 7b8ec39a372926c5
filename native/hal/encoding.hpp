// Many plaintexts at once: slots to residues in NTT form, with the bits of lattice.fhe.ckks.encoder.
#pragma once

#include "hal/conversion.hpp"

namespace lattice {

constexpr double kLargestEncoded = 4611686018427387904.0;  // 2^62: beyond, nothing is written

// out [count, limbs, n] from real and imaginary parts [count, n/2], values times `scale`. Returns the largest coefficient
// in size. `twiddles` as in ring/embedding.hpp.
double encode_slots(const Tables& tables, u64* out, const double* real, const double* imaginary, std::size_t count,
                    double scale, const double* twiddles);

}  // namespace lattice
