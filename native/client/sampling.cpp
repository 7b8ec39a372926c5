#include "client/sampling.hpp"

#include <stdexcept>

#include "ring/kernels.hpp"

namespace lattice {

void sample_ternary(std::int8_t* out, std::size_t n, const std::uint8_t* bytes, std::size_t count) {
    std::size_t done = 0;
    // A byte at a time is the same order, because words are little-endian. Which draws are skipped says nothing about
    // those that are kept.
    for (std::size_t i = 0; i < count / 8 * 8 && done < n; ++i) {
        for (int shift = 0; shift < 8 && done < n; shift += 2) {
            const int field = (bytes[i] >> shift) & 3;
            out[done] = static_cast<std::int8_t>(field - 1);
            done += field < 3;
        }
    }
    if (done < n) {
        wipe(out, n);
        throw std::invalid_argument("too few bytes for that many coefficients");
    }
}

void sample_error(std::int8_t* out, std::size_t n, const std::uint8_t* bytes, std::size_t count, int eta) {
    if (eta < 1 || eta > 32) throw std::invalid_argument("eta must be 1 … 32");
    if (count / 8 < n) throw std::invalid_argument("too few bytes for that many coefficients");
    kernels_for(2, current_isa()).centred_binomial(out, bytes, n, eta);
}

}  // namespace lattice
