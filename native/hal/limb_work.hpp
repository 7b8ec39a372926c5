// The work of a key switch modulo one prime. It goes leaf by leaf: finish the digits' transforms there, multiply by the key,
// subtract and divide, all while the leaf is in the second-level cache.
#pragma once

#include "hal/decomposition.hpp"
#include "hal/key_switch.hpp"

namespace lattice {

class LimbWork {
  public:
    LimbWork(const SwitchConstants& constants, std::size_t limb);

    // Which polynomial's digits; `space` is [digits, row_stride(n)].
    void take_digits(const Decomposition& decomposition, u64* space);

    // So many keys come, by turns.
    void expect_keys(std::size_t count);
    // Which of them comes next. Digits are finished by the first product with them.
    void take_key(const SwitchProduct& product, std::size_t number);

    // (b, a) = Σ_d σ(digit_d)·key_d at one leaf, divided by R; or that added to what is there. The arrays hold one leaf.
    void multiply(std::size_t leaf, u64* b, u64* a, bool add);
    // To be called when `multiply` was, for every leaf.
    void digits_are_finished() { finished_ = true; }

    // The same at `length` positions from `start` on, for digits that are finished. The arrays hold so many.
    void multiply_finished(std::size_t start, std::size_t length, u64* b, u64* a) const;

    // Finishes the digits without multiplying.
    void finish_digits();

    // The key's words of one leaf, or half of them, to be fetched.
    Ahead key_ahead(std::size_t leaf, std::size_t half);

    std::size_t leaf_size() const { return leaf_size_; }
    std::size_t leaves() const { return c_.n / leaf_size_; }
    const NttTable& table() const { return table_; }
    const Kernels& kernels() const { return *table_.kernels; }

  private:
    u64* key_row(const KeyView& key, std::size_t number, std::size_t digit, std::size_t half);

    const SwitchConstants& c_;
    std::size_t limb_;
    const NttTable& table_;
    std::size_t leaf_size_;
    LimbDigits digits_;
    bool finished_ = true;
    PointerList<const u64*> key_[2], ahead_[2];
    std::size_t expected_ = 0;
    std::vector<bool> is_read_;  // of keys with a source
    const Permutation* by_ = nullptr;
};

// What the special primes hold of sums over QP, on its way to be subtracted modulo q.
class SpecialPart {
  public:
    SpecialPart(const SwitchConstants& constants, std::size_t count);

    // Of sum number `index`, given modulo special prime `special` as evaluations divided by R.
    void take(std::size_t index, std::size_t special, const u64* sum);

    // What that converts to modulo a q prime, transformed up to its leaves.
    void convert(std::size_t index, std::size_t q_limb, u64* out) const;

  private:
    const SwitchConstants& c_;
    std::size_t stride_;
    Buffer z_;  // [count, special limbs, stride]
};

}  // namespace lattice
