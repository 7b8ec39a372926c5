// What every kernel needs to know of one prime.
#pragma once

#include "base/integers.hpp"

namespace lattice {

// Lazy values are kept below 2^52 (a multiplicand of the AVX-512 IFMA unit), hence this bound.
constexpr int kMaxModulusBits = 50;

// A constant factor w, ready for one instruction set; what the two words hold is the business of lanes_*.hpp.
struct Factor {
    u64 first;
    u64 second;
};

struct Modulus {
    u64 value;          // q, an odd prime below 2^50
    u64 inverse;        // q^{-1} mod 2^64; its low 52 bits are q^{-1} mod 2^52
    double real;        // q
    double reciprocal;  // 1/q, rounded
    u64 radix;          // R mod q: sums of products are finished divided by R (see lanes_scalar.hpp)
    Factor to_plain;    // the factor R, which undoes that
};

}  // namespace lattice
