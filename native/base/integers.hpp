// Exact arithmetic for set-up code: tables and constants. Hot loops have their own (ring/lanes_*.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace lattice {

using u64 = std::uint64_t;
using u32 = std::uint32_t;
__extension__ using u128 = unsigned __int128;

inline u64 mul_mod(u64 a, u64 b, u64 q) { return static_cast<u64>(static_cast<u128>(a) * b % q); }

inline u64 add_mod(u64 a, u64 b, u64 q) {
    const u64 sum = a + b;
    return sum >= q ? sum - q : sum;
}

inline u64 sub_mod(u64 a, u64 b, u64 q) { return a >= b ? a - b : a + q - b; }

inline u64 pow_mod(u64 base, u64 exponent, u64 q) {
    u64 result = 1 % q;
    for (base %= q; exponent != 0; exponent >>= 1) {
        if (exponent & 1) result = mul_mod(result, base, q);
        base = mul_mod(base, base, q);
    }
    return result;
}

// q must be prime.
inline u64 inverse_mod(u64 a, u64 q) { return pow_mod(a % q, q - 2, q); }

// q^{-1} mod 2^64 for odd q, by Newton: each step doubles the number of right bits (3, 6, 12, …).
inline u64 inverse_mod_2_64(u64 q) {
    u64 x = q;
    for (int step = 0; step < 5; ++step) x *= 2 - q * x;
    return x;
}

inline u32 reverse_bits(u32 value, int bits) {
    u32 result = 0;
    for (int bit = 0; bit < bits; ++bit) result |= ((value >> bit) & 1u) << (bits - 1 - bit);
    return result;
}

// Throws std::invalid_argument unless n is a power of two.
inline int log2_of(std::size_t n) {
    int log_n = 0;
    while (log_n < 40 && (std::size_t{1} << log_n) < n) ++log_n;
    if ((std::size_t{1} << log_n) != n) throw std::invalid_argument(std::to_string(n) + " is not a power of two");
    return log_n;
}

}  // namespace lattice
