// Hybrid key switching: cut into digits, extend each to all primes, multiply by the key, divide by P.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "hal/conversion.hpp"
#include "ring/permutation.hpp"

namespace lattice {

// The constants of one KeySwitchContext (lattice.fhe.ckks.digits) for one instruction set.
struct SwitchConstants {
    SwitchConstants(const std::vector<u64>& q, const std::vector<u64>& special,
                    const std::vector<std::pair<std::size_t, std::size_t>>& digits, int log_n, Isa isa);

    int log_n;
    Isa isa;
    std::size_t n, q_limbs, special_limbs;
    Tables tables;                                           // q primes, then special primes
    std::vector<std::pair<std::size_t, std::size_t>> digits;  // half-open ranges of q limbs
    std::vector<std::size_t> digit_of;                       // by q limb
    std::vector<BaseConversion> up;                          // by digit, to all primes
    BaseConversion down;                                     // P to Q, of sums of products
    std::vector<Factor> down_factor;                         // P^{-1}·R modulo each q prime

    std::size_t limbs() const { return q_limbs + special_limbs; }
};

class SwitchContext {
  public:
    // Throws std::invalid_argument unless the digits cut the q primes into consecutive runs.
    SwitchContext(std::size_t n, std::vector<u64> q, std::vector<u64> special,
                  std::vector<std::pair<std::size_t, std::size_t>> digits);

    const SwitchConstants& constants() const;  // for the current instruction set

    std::size_t n() const { return n_; }
    std::size_t q_limbs() const { return q_.size(); }
    std::size_t limbs() const { return q_.size() + special_.size(); }
    std::size_t digits() const { return digits_.size(); }
    std::vector<u64> moduli() const;

  private:
    std::size_t n_;
    std::vector<u64> q_, special_;
    std::vector<std::pair<std::size_t, std::size_t>> digits_;
    mutable std::mutex mutex_;
    mutable std::array<std::unique_ptr<SwitchConstants>, 3> by_isa_;
};

// An evaluation key [digits, 2, limbs, n]: its first q limbs and its last special limbs are read, so that a key made
// for a higher level serves.
struct KeyView {
    const u64* data;
    std::size_t limbs;

    const u64* limb(const SwitchConstants& c, std::size_t digit, std::size_t half, std::size_t limb) const {
        const std::size_t at = limb < c.q_limbs ? limb : limbs - c.limbs() + limb;
        return data + ((digit * 2 + half) * limbs + at) * c.n;
    }
};

// One thing to make of the digits of a polynomial: out = ModDown(Σ_d σ(digit_d)·key_d) + (σ(addends)).
struct SwitchTarget {
    KeyView key;
    const Permutation* by;  // σ on the digits, or null
    std::array<u64*, 2> out;     // [q limbs, n] each
    std::array<Addend, 2> addend;
};

// All targets from one decomposition of `input` [q limbs, n] in NTT form.
void switch_keys(const SwitchConstants& c, const u64* input, const std::vector<SwitchTarget>& targets);

// The parts, for callers that keep the digits: [digits, limbs, n] residues, and [2, limbs, n] residues.
void decompose(const SwitchConstants& c, u64* digits, const u64* input);
void gadget_product(const SwitchConstants& c, u64* out, const u64* digits, std::size_t digit_stride, KeyView key);

}  // namespace lattice
