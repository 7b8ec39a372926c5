#include "client/sampling.hpp"

#include <stdexcept>

#include "base/integers.hpp"

namespace lattice {
namespace {

u64 little_endian(const std::uint8_t* p) {
    u64 word = 0;
    for (int i = 0; i < 8; ++i) word |= static_cast<u64>(p[i]) << (8 * i);
    return word;
}

// The number of ones in each half of x, in the half's lowest byte.
u64 ones_of_halves(u64 x) {
    x -= (x >> 1) & 0x5555555555555555;
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
    x += x >> 8;
    return x + (x >> 16);
}

}  // namespace

void sample_ternary(std::int8_t* out, std::size_t n, const std::uint8_t* bytes, std::size_t count) {
    std::size_t done = 0;
    // A byte at a time is the same order, because words are little-endian. Which draws are skipped says nothing about
    // those that are kept.
    for (std::size_t i = 0; i < count / 8 * 8 && done < n; ++i) {
        for (int shift = 0; shift < 8 && done < n; shift += 2) {
            const int field = (bytes[i] >> shift) & 3;
            out[done] = static_cast<std::int8_t>(field - 1);
            done += field < 3;
        }
    }
    if (done < n) {
        wipe(out, n);
        throw std::invalid_argument("too few bytes for that many coefficients");
    }
}

void sample_error(std::int8_t* out, std::size_t n, const std::uint8_t* bytes, std::size_t count, int eta) {
    if (eta < 1 || eta > 32) throw std::invalid_argument("eta must be 1 … 32");
    if (count / 8 < n) throw std::invalid_argument("too few bytes for that many coefficients");
    const u64 mask = (u64{1} << eta) - 1;
    for (std::size_t i = 0; i < n; ++i) {
        const u64 word = little_endian(bytes + 8 * i);
        const u64 ones = ones_of_halves((word & mask) | ((word >> eta) & mask) << 32);
        out[i] = static_cast<std::int8_t>(static_cast<int>(ones & 0x3F) - static_cast<int>((ones >> 32) & 0x3F));
    }
}

}  // namespace lattice
