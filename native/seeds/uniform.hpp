// Uniform polynomials from public 32-byte seeds, as lattice.fhe.ckks.seeds defines them.
#pragma once

#include <vector>

#include "base/cpu.hpp"
#include "seeds/aes256.hpp"

namespace lattice {

// The residues of one prime, in order and in pieces of any size.
class UniformStream {
  public:
    // `keys` must outlive the stream. q in 2 … 2^63.
    UniformStream(const RoundKeys& keys, u64 stream, u64 q, Isa isa);
    // One that somebody expanded already.
    explicit UniformStream(const u64* expanded) : given_(expanded) {}

    void read(u64* out, std::size_t count);

  private:
    static constexpr std::size_t kKept = 2 * kBlocksAtOnce;

    std::size_t draw(u64* out, std::size_t blocks);

    const u64* given_ = nullptr;
    Draws draws_{};
    DrawKernel kernel_ = nullptr;
    u64 next_block_ = 0;
    std::size_t from_ = 0, to_ = 0;  // what `kept_` still holds
    u64 kept_[kKept];
};

// One polynomial: its seed, its type and digit, and the stream index of every limb.
class UniformPolynomial {
  public:
    // std::invalid_argument unless there are 32 bytes.
    UniformPolynomial(const std::uint8_t* seed, std::size_t bytes, u64 kind, u64 digit, std::vector<u64> indices);

    // Expanded elsewhere, [limbs, n]; not copied. For machines on which a library's AES is faster than ours.
    UniformPolynomial(const u64* expanded, std::size_t limbs, std::size_t n);

    std::size_t limbs() const { return indices_.size(); }
    UniformStream limb(std::size_t number, u64 q, Isa isa) const;

    // [limbs, n], limb by limb on the pool's threads.
    void expand(u64* out, std::size_t n, const std::vector<u64>& moduli, Isa isa) const;

  private:
    const u64* given_ = nullptr;
    std::size_t given_n_ = 0;
    RoundKeys keys_{};
    u64 kind_ = 0, digit_ = 0;
    std::vector<u64> indices_;
};

// "vaes", "aesni" or "portable": what expands seeds where `isa` is in use.
const char* draw_kernel_name(Isa isa);

}  // namespace lattice
