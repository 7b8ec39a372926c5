// Slots to plaintexts and back, with the bits of lattice.fhe.ckks.{embedding,encoder}.
#pragma once

#include <vector>

#include "bundle.hpp"

namespace suite {

using Reals = std::vector<double>;

class Encoder {
  public:
    // `twiddles`: the bundle's section.
    Encoder(int log_n, Words twiddles);

    // Slots (real and imaginary parts, N/2 each; overwritten) times the scale, rounded to even, in NTT form:
    // [limbs, n]. std::runtime_error where a coefficient has more than 62 bits or does not fit the modulus.
    void encode(u64* out, Reals& real, Reals& imaginary, double scale, const Moduli& moduli) const;

    // The real parts of the slots of [limbs, n] in NTT form, which is overwritten.
    Reals decode(u64* poly, double scale, const Moduli& moduli) const;

  private:
    void interpolate(Reals& real, Reals& imaginary) const;
    void evaluate(Reals& real, Reals& imaginary) const;

    int log_n_;
    std::size_t n_;
    std::vector<const double*> stages_;  // cosines, then sines
};

}  // namespace suite
