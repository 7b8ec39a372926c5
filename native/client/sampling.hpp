// Small polynomials from key-stream bytes, exactly as lattice.fhe.keys.sampling defines them. Key streams come from a
// reviewed library; what depends on a secret here takes no branch and reads no table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "client/locked_memory.hpp"

namespace lattice {

// Of each little-endian 64-bit word, the two-bit fields from the lowest on, less one, where 3 is skipped.
// std::invalid_argument if the bytes do not suffice; `out` is then wiped.
void sample_ternary(std::int8_t* out, std::size_t n, const std::uint8_t* bytes, std::size_t count);

// Of each word, popcount(lowest η bits) − popcount(next η bits); 1 ≤ η ≤ 32, and 8·n bytes, else std::invalid_argument.
void sample_error(std::int8_t* out, std::size_t n, const std::uint8_t* bytes, std::size_t count, int eta);

// Such a polynomial, in locked memory, for the time of one operation.
class SmallPolynomial {
  public:
    static SmallPolynomial ternary(std::size_t n, const std::uint8_t* bytes, std::size_t count) {
        SmallPolynomial out(n);
        sample_ternary(out.coefficients(), n, bytes, count);
        return out;
    }
    static SmallPolynomial error(std::size_t n, const std::uint8_t* bytes, std::size_t count, int eta) {
        SmallPolynomial out(n);
        sample_error(out.coefficients(), n, bytes, count, eta);
        return out;
    }
    const std::int8_t* data() const { return static_cast<const std::int8_t*>(memory_.data()); }

  private:
    explicit SmallPolynomial(std::size_t n) : memory_(n) {}
    std::int8_t* coefficients() { return static_cast<std::int8_t*>(memory_.data()); }

    SecretScratch memory_;
};

}  // namespace lattice
