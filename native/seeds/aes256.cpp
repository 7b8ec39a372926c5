#include "seeds/aes256.hpp"

#include <array>
#include <cstring>

namespace lattice {
namespace {

constexpr std::uint8_t times_x(std::uint8_t a) {
    return static_cast<std::uint8_t>((a << 1) ^ ((a >> 7) * 0x1b));
}

constexpr std::uint8_t rotate_left(std::uint8_t a, int by) {
    return static_cast<std::uint8_t>((a << by) | (a >> (8 - by)));
}

// The inverse in GF(2^8) and the affine map, walking through the field by its generator 3 and that one's inverse.
constexpr std::array<std::uint8_t, 256> make_sbox() {
    std::array<std::uint8_t, 256> box{};
    std::uint8_t p = 1, q = 1;
    do {
        p = static_cast<std::uint8_t>(p ^ times_x(p));
        q = static_cast<std::uint8_t>(q ^ (q << 1));
        q = static_cast<std::uint8_t>(q ^ (q << 2));
        q = static_cast<std::uint8_t>(q ^ (q << 4));
        if (q & 0x80) q = static_cast<std::uint8_t>(q ^ 0x09);
        box[p] = static_cast<std::uint8_t>(q ^ rotate_left(q, 1) ^ rotate_left(q, 2) ^ rotate_left(q, 3) ^
                                           rotate_left(q, 4) ^ 0x63);
    } while (p != 1);
    box[0] = 0x63;
    return box;
}
constexpr std::array<std::uint8_t, 256> kSbox = make_sbox();

// SubBytes and MixColumns of one byte that stands in row 0 of its column; other rows rotate it.
constexpr std::array<u32, 256> make_columns() {
    std::array<u32, 256> columns{};
    for (std::size_t a = 0; a < 256; ++a) {
        const std::uint8_t s = kSbox[a], twice = times_x(s);
        columns[a] = static_cast<u32>(twice) | static_cast<u32>(s) << 8 | static_cast<u32>(s) << 16 |
                     static_cast<u32>(static_cast<std::uint8_t>(twice ^ s)) << 24;
    }
    return columns;
}
constexpr std::array<u32, 256> kColumns = make_columns();

constexpr u32 rotate(u32 x, int by) { return by == 0 ? x : x << by | x >> (32 - by); }

// Words here are the columns of the state, row 0 in the lowest byte, on every machine.
u32 load_column(const std::uint8_t* p) {
    return static_cast<u32>(p[0]) | static_cast<u32>(p[1]) << 8 | static_cast<u32>(p[2]) << 16 |
           static_cast<u32>(p[3]) << 24;
}

std::uint8_t row(u32 column, int r) { return static_cast<std::uint8_t>(column >> (8 * r)); }

void put_big_endian(std::uint8_t* out, u64 x) {
    for (int i = 0; i < 8; ++i) out[i] = static_cast<std::uint8_t>(x >> (56 - 8 * i));
}

u64 little_endian(const std::uint8_t* p) {
    return static_cast<u64>(load_column(p)) | static_cast<u64>(load_column(p + 4)) << 32;
}

}  // namespace

RoundKeys expand_key(const std::uint8_t seed[kSeedBytes]) {
    RoundKeys keys{};
    std::uint8_t* w = &keys.bytes[0][0];
    std::memcpy(w, seed, kSeedBytes);
    std::uint8_t round = 1;
    for (std::size_t i = 8; i < 4 * (kAesRounds + 1); ++i) {
        std::uint8_t t[4];
        std::memcpy(t, w + 4 * (i - 1), 4);
        if (i % 8 == 0) {
            const std::uint8_t first = t[0];
            for (int k = 0; k < 3; ++k) t[k] = kSbox[t[k + 1]];
            t[3] = kSbox[first];
            t[0] = static_cast<std::uint8_t>(t[0] ^ round);
            round = times_x(round);
        } else if (i % 8 == 4) {
            for (std::uint8_t& b : t) b = kSbox[b];
        }
        for (std::size_t k = 0; k < 4; ++k) w[4 * i + k] = static_cast<std::uint8_t>(w[4 * (i - 8) + k] ^ t[k]);
    }
    return keys;
}

void encrypt_block(std::uint8_t out[16], const std::uint8_t in[16], const RoundKeys& keys) {
    u32 s[4];
    for (int c = 0; c < 4; ++c) s[c] = load_column(in + 4 * c) ^ load_column(keys.bytes[0] + 4 * c);
    for (int round = 1; round < kAesRounds; ++round) {
        u32 t[4];
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) {
            t[c] = load_column(keys.bytes[round] + 4 * c);
#pragma GCC unroll 4
            for (int r = 0; r < 4; ++r) t[c] ^= rotate(kColumns[row(s[(c + r) % 4], r)], 8 * r);
        }
        std::memcpy(s, t, sizeof s);
    }
    for (int c = 0; c < 4; ++c) {
        for (int r = 0; r < 4; ++r) {
            const std::uint8_t key = keys.bytes[kAesRounds][4 * c + r];
            out[4 * c + r] = static_cast<std::uint8_t>(kSbox[row(s[(c + r) % 4], r)] ^ key);
        }
    }
}

std::size_t draw_portable(u64* out, const Draws& draws, u64 first, std::size_t blocks) {
    std::size_t kept = 0;
    std::uint8_t in[16], block[16];
    put_big_endian(in, draws.stream);
    for (std::size_t b = 0; b < blocks; ++b) {
        put_big_endian(in + 8, first + b);
        encrypt_block(block, in, *draws.keys);
        for (int half = 0; half < 2; ++half) {
            const u64 draw = little_endian(block + 8 * half) & draws.mask;
            out[kept] = draw;
            kept += draw < draws.q;
        }
    }
    return kept;
}

}  // namespace lattice
