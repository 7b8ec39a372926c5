// A ternary secret polynomial that never leaves native memory, and the few things that are done with it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "client/locked_memory.hpp"
#include "hal/conversion.hpp"
#include "seeds/uniform.hpp"

namespace lattice {

// What an encryption under the secret key hides: a plaintext [limbs, n] in NTT form, or gadget·s' for a key, where s' is
// s² (element 0) or the automorphism X → X^element of s, and limb i takes gadget[i], which is zero where it takes nothing.
struct Hidden {
    const u64* plain = nullptr;
    const Moduli* gadget = nullptr;
    u64 element = 0;
};

class SecretBuffer {
  public:
    explicit SecretBuffer(std::size_t n);  // all zero; n a power of two

    // From uniform bytes: see client/sampling.hpp.
    void sample_ternary(const std::uint8_t* bytes, std::size_t count);
    // Coefficients in {-1, 0, 1}, else std::invalid_argument.
    void set(const std::int8_t* coefficients);
    void get(std::int8_t* coefficients) const;
    // Two bits for each, value + 1, the lowest first: n/4 bytes. A field of 3 is std::invalid_argument.
    void pack(std::uint8_t* out) const;
    void unpack(const std::uint8_t* packed);

    // Σ_k component_k·s^k for components [count, limbs, n] in NTT form: decryption.
    void decrypt(u64* out, const u64* components, std::size_t count, const Moduli& moduli);
    // x·s for x [limbs, n] in NTT form.
    void multiply(u64* out, const u64* x, const Moduli& moduli);
    // e − a·s + what is hidden, [limbs, n] in NTT form: an encryption, or one digit of a key. `error` has n coefficients.
    void encrypt(u64* out, const UniformPolynomial& a, const std::int8_t* error, const Hidden& hidden,
                 const Moduli& moduli);

    // Zeros everything; using it afterwards throws std::logic_error.
    void wipe();
    bool wiped() const;
    bool locked() const;  // all of it, as far as there is room for locked memory
    std::size_t n() const { return n_; }

  private:
    const u64* evaluations(const NttTable& table);  // s in NTT form, made once for each prime
    Tables prepared(const Moduli& moduli);          // the tables, with all evaluations made
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
