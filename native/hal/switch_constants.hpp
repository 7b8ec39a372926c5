// The constants of one KeySwitchContext (lattice.fhe.ckks.digits).
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "hal/conversion.hpp"

namespace lattice {

using LimbRange = std::pair<std::size_t, std::size_t>;  // half-open

// For one instruction set.
struct SwitchConstants {
    SwitchConstants(const Moduli& q, const Moduli& special, const std::vector<LimbRange>& digits, int log_n, Isa isa);

    int log_n;
    Isa isa;
    std::size_t n, q_limbs, special_limbs;
    Tables tables;  // q primes, then special primes
    std::vector<LimbRange> digits;
    std::vector<std::size_t> digit_of;  // by q limb
    std::vector<BaseConversion> up;     // by digit, to all primes
    BaseConversion down;                // P to Q, of sums of products
    std::vector<Factor> down_factor;    // P^{-1}·R modulo each q prime
    std::vector<Factor> lift;           // P·R^{-1} modulo each q prime: makes of a residue what P times it is as a sum

    std::size_t limbs() const { return q_limbs + special_limbs; }
};

// For whichever instruction set is current.
class SwitchContext {
  public:
    // Throws std::invalid_argument unless the digits cut the q primes into consecutive runs.
    SwitchContext(std::size_t n, Moduli q, Moduli special, std::vector<LimbRange> digits);

    const SwitchConstants& constants() const;

    std::size_t n() const { return n_; }
    std::size_t q_limbs() const { return q_.size(); }
    std::size_t limbs() const { return q_.size() + special_.size(); }
    std::size_t digits() const { return digits_.size(); }

  private:
    std::size_t n_;
    int log_n_;
    Moduli q_, special_;
    std::vector<LimbRange> digits_;
    mutable std::mutex mutex_;
    mutable std::array<std::unique_ptr<SwitchConstants>, 3> by_isa_;
};

// Makes the rows of a key when they are wanted: for keys that are used too seldom to be worth memory of their own.
class KeySource {
  public:
    virtual ~KeySource() = default;
    virtual void read(u64* row, std::size_t digit, std::size_t half, std::size_t limb) const = 0;
};

// An evaluation key [digits, 2, limbs, n]: its first q limbs and its last special limbs are read, so that a key made
// for a higher level serves.
struct KeyView {
    const u64* data;
    std::size_t limbs;
    const KeySource* source = nullptr;  // instead of `data`

    std::size_t place(const SwitchConstants& c, std::size_t limb) const {
        return limb < c.q_limbs ? limb : limbs - c.limbs() + limb;
    }
    const u64* limb(const SwitchConstants& c, std::size_t digit, std::size_t half, std::size_t limb) const {
        return data + ((digit * 2 + half) * limbs + place(c, limb)) * c.n;
    }
};

}  // namespace lattice
