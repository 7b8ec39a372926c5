#include "bits.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace suite {
namespace {

static_assert(std::endian::native == std::endian::little);

int field_bits(u64 q) { return static_cast<int>(std::bit_width(q - 1)); }

// A field spans at most 57 bits of eight bytes, since primes are below 2^50. `from` has eight bytes to spare. The width is
// a constant, so that shifts are.
template <int kWidth>
u64 unpack_fields(u64* out, const std::uint8_t* from, std::size_t count) {
    constexpr u64 kMask = (u64{1} << kWidth) - 1;
    u64 largest = 0;
    for (std::size_t i = 0; i < count; i += 8, from += kWidth) {  // eight fields are kWidth bytes
        for (int k = 0; k < 8; ++k) {
            u64 word;
            std::memcpy(&word, from + k * kWidth / 8, 8);
            word = word >> (k * kWidth % 8) & kMask;
            largest = std::max(largest, word);
            out[i + static_cast<std::size_t>(k)] = word;
        }
    }
    return largest;
}

template <int... kWidths>
constexpr auto unpackers(std::integer_sequence<int, kWidths...>) {
    return std::array{&unpack_fields<kWidths>...};
}
constexpr auto kUnpackers = unpackers(std::make_integer_sequence<int, 51>{});  // by width

}  // namespace

std::size_t packed_bytes(const Moduli& moduli, std::size_t n) {
    std::size_t bits = 0;
    for (u64 q : moduli) bits += static_cast<std::size_t>(field_bits(q));
    return bits * n / 8;
}

void pack(std::vector<std::uint8_t>& out, const u64* poly, const Moduli& moduli, std::size_t n) {
    std::size_t at = out.size();
    out.resize(at + packed_bytes(moduli, n));
    for (std::size_t limb = 0; limb < moduli.size(); ++limb) {
        const int bits = field_bits(moduli[limb]);
        u64 word = 0;
        int filled = 0;
        for (std::size_t i = 0; i < n; ++i) {
            const u64 x = poly[limb * n + i];
            word |= x << filled;
            filled += bits;
            if (filled < 64) continue;
            std::memcpy(out.data() + at, &word, 8);
            at += 8;
            filled -= 64;
            word = filled != 0 ? x >> (bits - filled) : 0;
        }
    }
}

Bytes take(Bytes& bytes, std::size_t count) {
    if (count > bytes.size()) throw std::runtime_error("a file is shorter than it should be");
    const Bytes found = bytes.first(count);
    bytes = bytes.subspan(count);
    return found;
}

void unpack_limb(u64* out, Bytes& bytes, u64 q, std::size_t n) {
    const int bits = field_bits(q);
    const Bytes mine = take(bytes, n * static_cast<std::size_t>(bits) / 8);
    // The last group may be the end of the file: it is read from a copy.
    const std::size_t safe = n - 8, tail = static_cast<std::size_t>(bits);
    std::uint8_t last[64 + 8] = {};
    std::memcpy(last, mine.data() + mine.size() - tail, tail);
    const auto unpack_some = kUnpackers.at(tail);
    const u64 largest = std::max(unpack_some(out, mine.data(), safe), unpack_some(out + safe, last, 8));
    if (largest >= q) throw std::runtime_error("a residue is not below its prime");
}

void unpack(u64* out, Bytes& bytes, const Moduli& moduli, std::size_t n) {
    for (std::size_t limb = 0; limb < moduli.size(); ++limb) unpack_limb(out + limb * n, bytes, moduli[limb], n);
}

}  // namespace suite
