// What clients send, as it travels: packed residues and seeds. Rows of it are made when they are wanted.
#pragma once

#include "bits.hpp"
#include "hal/sums.hpp"
#include "streams.hpp"

namespace suite {

Seed take_seed(Bytes& left);

// An evaluation key: a seed, then for each digit its b, packed.
class PackedKey : public lattice::KeySource {
  public:
    PackedKey(const Scheme& scheme, const KeySpec& spec, Bytes& left);

    void read(u64* row, std::size_t digit, std::size_t half, std::size_t limb) const override;

    std::size_t limbs() const { return moduli_.size(); }
    std::size_t digits() const { return packed_.size(); }

  private:
    std::size_t n_;
    Moduli moduli_;
    std::vector<Bytes> packed_;  // by digit
    std::vector<lattice::UniformPolynomial> uniform_;
};

// The ciphertexts of one query: each a seed, then its c0, packed.
class PackedInputs : public lattice::RowSource {
  public:
    PackedInputs(const Scheme& scheme, const std::vector<std::size_t>& levels, Bytes& left);

    void read(u64* row, std::size_t input, std::size_t component, std::size_t limb) const override;

  private:
    struct Input {
        Moduli moduli;
        Bytes packed;
        lattice::UniformPolynomial uniform;
    };
    std::size_t n_;
    std::vector<Input> inputs_;
};

// How many queries there are; std::runtime_error unless they are whole.
std::size_t count_queries(const Scheme& scheme, const std::vector<std::size_t>& levels, Bytes upload);

}  // namespace suite
