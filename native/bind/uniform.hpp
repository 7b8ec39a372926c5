// The uniform half of a key or a ciphertext, as Python holds it.
#pragma once

#include "bind/arrays.hpp"
#include "seeds/uniform.hpp"

namespace lattice {

using WritableWords = nb::ndarray<u64, nb::c_contig, nb::device::cpu>;

struct PublicHalf {
    UniformPolynomial polynomial;
    Input expanded;         // keeps alive what the polynomial refers to, if somebody expanded it before
    std::size_t n;          // of that; 0: any

    void require(std::size_t limbs, std::size_t n_wanted) const {
        if (polynomial.limbs() != limbs || (n != 0 && n != n_wanted)) {
            throw std::invalid_argument("the uniform half has another shape");
        }
    }
};

}  // namespace lattice
