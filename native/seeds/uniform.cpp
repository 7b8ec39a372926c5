#include "seeds/uniform.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "base/pool.hpp"

namespace lattice {
namespace {

struct Choice {
    DrawKernel kernel;
    const char* name;
};

Choice choose(Isa isa) {
#if defined(LATTICE_X86)
    static const bool aesni = __builtin_cpu_supports("aes") && __builtin_cpu_supports("sse4.1");
    static const bool vaes = aesni && __builtin_cpu_supports("vaes") && __builtin_cpu_supports("avx512bw");
    if (isa == Isa::avx512ifma && vaes) return {&draw_vaes, "vaes"};
    if (isa != Isa::scalar && aesni) return {&draw_aesni, "aesni"};
#endif
    static_cast<void>(isa);
    return {&draw_portable, "portable"};
}

u64 mask_of(u64 q) { return ~u64{0} >> __builtin_clzll(q); }

}  // namespace

const char* draw_kernel_name(Isa isa) { return choose(isa).name; }

UniformStream::UniformStream(const RoundKeys& keys, u64 stream, u64 q, Isa isa)
    : draws_{&keys, stream, q, mask_of(q)}, kernel_(choose(isa).kernel) {}

UniformPolynomial::UniformPolynomial(const u64* expanded, std::size_t limbs, std::size_t n)
    : given_(expanded), given_n_(n), indices_(limbs) {}

std::size_t UniformStream::draw(u64* out, std::size_t blocks) {
    const std::size_t made = kernel_(out, draws_, next_block_, blocks);
    next_block_ += blocks;
    return made;
}

void UniformStream::read(u64* out, std::size_t count) {
    if (given_ != nullptr) {
        std::memcpy(out, given_, count * sizeof(u64));
        given_ += count;
        return;
    }
    while (count > 0) {
        if (from_ < to_) {
            const std::size_t length = std::min(count, to_ - from_);
            std::memcpy(out, kept_ + from_, length * sizeof(u64));
            from_ += length;
            out += length;
            count -= length;
        } else if (count >= kKept) {  // whole blocks straight to where they belong
            const std::size_t made = draw(out, count / kKept * kBlocksAtOnce);
            out += made;
            count -= made;
        } else {
            from_ = 0;
            to_ = draw(kept_, kBlocksAtOnce);
        }
    }
}

UniformPolynomial::UniformPolynomial(const std::uint8_t* seed, std::size_t bytes, u64 kind, u64 digit,
                                     std::vector<u64> indices)
    : kind_(kind), digit_(digit), indices_(std::move(indices)) {
    if (bytes != kSeedBytes) throw std::invalid_argument("a seed has 32 bytes");
    if (kind > 0xFFFF || digit > 0xFFFF || std::any_of(indices_.begin(), indices_.end(), [](u64 i) { return i >> 32; })) {
        throw std::invalid_argument("a stream id is a type and a digit of two bytes and a prime of four");
    }
    // Types from 2^15 on are those of secret streams, which have no business here.
    if (kind & 0x8000) throw std::invalid_argument("a secret stream is not expanded from a public seed");
    keys_ = expand_key(seed);
}

UniformStream UniformPolynomial::limb(std::size_t number, u64 q, Isa isa) const {
    if (given_ != nullptr) return UniformStream(given_ + number * given_n_);
    return UniformStream(keys_, kind_ << 48 | digit_ << 32 | indices_[number], q, isa);
}

void UniformPolynomial::expand(u64* out, std::size_t n, const std::vector<u64>& moduli, Isa isa) const {
    if (moduli.size() != limbs()) throw std::invalid_argument("as many primes as stream indices are needed");
    if (std::any_of(moduli.begin(), moduli.end(), [](u64 q) { return q < 2 || q >> 63; })) {
        throw std::invalid_argument("a prime is at least 2 and below 2^63");
    }
    parallel(limbs(), [&](std::size_t number) { limb(number, moduli[number], isa).read(out + number * n, n); });
}

}  // namespace lattice
