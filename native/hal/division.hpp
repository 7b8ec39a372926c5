// Dividing by primes and rounding: ModDown, and rescaling.
#pragma once

#include "hal/conversion.hpp"

namespace lattice {

struct DivisionConstants {
    DivisionConstants(const Moduli& kept, const Moduli& dropped, int log_n, Isa isa);

    int log_n;
    std::size_t n;
    Tables kept, dropped;
    BaseConversion conversion;
    std::vector<Factor> factor;  // (Π dropped)^{-1} modulo each kept prime
};

// Cached for ever, like tables.
const DivisionConstants& division_constants(const Moduli& kept, const Moduli& dropped, int log_n,
                                            Isa isa);

// `batch` polynomials [kept + dropped, n] in NTT form to [kept, n].
void divide(const DivisionConstants& c, u64* out, const u64* x, std::size_t batch);

}  // namespace lattice
