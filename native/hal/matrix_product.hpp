// Double-hoisted baby-step giant-step matrix–vector products (Bossuat et al., eprint 2020/1203, algorithm 6), of several
// ciphertexts to several results, as lattice.fhe.hal.composites.matrix defines them.
#pragma once

#include "hal/key_switch.hpp"

namespace lattice {

// A rotation. No key: the identity.
struct MatrixStep {
    bool identity;
    SwitchProduct product;
};

// One ciphertext turned by one baby step; made once, whatever the number of products with it.
struct MatrixTurn {
    std::size_t input, baby;
};

struct MatrixTerm {
    std::size_t turn;
    const u64* diagonal;  // [limbs, n] over QP
};

// What one giant step of one result adds up before it is turned.
struct MatrixInner {
    std::size_t out, giant;
    std::vector<MatrixTerm> terms;
};

struct MatrixPlan {
    std::vector<MatrixStep> babies;
    std::vector<MatrixStep> giants;
    std::vector<MatrixTurn> turns;   // by input
    std::vector<MatrixInner> inner;  // by result; every result has one
};

// out[a] [2, q limbs, n] = Σ_j σ_j(Σ diagonal ⊙ σ_b(in[i])), for in[i] [2, q limbs, n].
void multiply_matrix(const SwitchConstants& c, const std::vector<u64*>& out, const std::vector<const u64*>& in,
                     const MatrixPlan& plan);

}  // namespace lattice
