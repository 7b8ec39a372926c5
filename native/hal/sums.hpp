// Sums of products of ciphertexts and plaintexts: no key, no rotation, nothing rounded.
#pragma once

#include <utility>
#include <vector>

#include "hal/conversion.hpp"

namespace lattice {

// Makes the rows of ciphertexts when they are wanted: for more ciphertexts than should be in memory at once.
class RowSource {
  public:
    virtual ~RowSource() = default;
    virtual void read(u64* row, std::size_t ciphertext, std::size_t component, std::size_t limb) const = 0;
};

// Ciphertexts [components, limbs, n], all alike.
struct Ciphertexts {
    std::vector<const u64*> data;
    std::size_t components;
    const RowSource* source = nullptr;  // instead of `data`, where a sum says that it may be
    std::vector<std::size_t> numbers{};  // of the source's

    std::size_t size() const { return source != nullptr ? numbers.size() : data.size(); }
};

using SumTerms = std::vector<std::vector<std::pair<std::size_t, std::size_t>>>;  // by result: (input, plaintext)

// out[a] = Σ plain[d] ⊙ in[i] over terms[a]; plaintexts are [limbs, n] each. Every weight is read once from memory.
void sum_plain(const Tables& tables, const std::vector<u64*>& out, const Ciphertexts& in,
               const std::vector<const u64*>& plain, const SumTerms& terms);

// out[a] = Σ_i w[a, i] ⊙ in[i] for plaintexts that repeat: weights are [outs, inputs, limbs, values], and each value
// stands for n/values neighbouring positions. They may come from a source where `reads_rows`.
void sum_periodic(const Tables& tables, const std::vector<u64*>& out, const Ciphertexts& in, const u64* weights,
                  std::size_t values);

// Whether `sum_periodic` reads every row of the ciphertexts just once.
bool reads_rows(const Tables& tables, std::size_t values);

}  // namespace lattice
