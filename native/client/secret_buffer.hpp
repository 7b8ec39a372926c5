// A ternary secret polynomial that never leaves native memory, and the few things that are done with it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "client/locked_memory.hpp"
#include "hal/conversion.hpp"

namespace lattice {

class SecretBuffer {
  public:
    explicit SecretBuffer(std::size_t n);  // all zero; n a power of two

    // From uniform bytes, as lattice.fhe.keys.sampling.ternary reads them: of each little-endian 64-bit word the
    // two-bit fields from the lowest on, less one, where 3 is skipped. std::invalid_argument if they do not suffice.
    void sample_ternary(const std::uint8_t* bytes, std::size_t count);
    // Coefficients in {-1, 0, 1}, else std::invalid_argument.
    void set(const std::int8_t* coefficients);
    void get(std::int8_t* coefficients) const;

    // Σ_k component_k·s^k for components [count, limbs, n] in NTT form: decryption.
    void decrypt(u64* out, const u64* components, std::size_t count, const Moduli& moduli);
    // x·s for x [limbs, n] in NTT form: the mask of an encryption or a key.
    void multiply(u64* out, const u64* x, const Moduli& moduli);

    // Zeros everything; using it afterwards throws std::logic_error.
    void wipe();
    bool wiped() const;
    bool locked() const { return coefficients_.locked(); }
    std::size_t n() const { return n_; }

  private:
    const u64* evaluations(const NttTable& table);  // s in NTT form, made once for each prime
    void require_unwiped() const;

    // Every method holds it to its end: Python calls from several threads, and nothing may be read while it is wiped.
    mutable std::mutex mutex_;

    std::size_t n_;
    int log_n_;
    bool wiped_ = false;
    LockedMemory coefficients_;
    std::map<u64, LockedMemory> evaluations_;
};

}  // namespace lattice
