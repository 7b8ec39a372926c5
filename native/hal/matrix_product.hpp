// Double-hoisted baby-step giant-step matrix–vector products (Bossuat et al., eprint 2020/1203, algorithm 6), as
// lattice.fhe.hal.composites.bsgs defines them.
#pragma once

#include "hal/key_switch.hpp"

namespace lattice {

// A rotation. No key: the identity.
struct MatrixStep {
    bool identity;
    SwitchProduct product;
};

struct MatrixTerm {
    std::size_t baby;
    const u64* diagonal;  // [limbs, n] over QP
};

struct MatrixPlan {
    std::vector<MatrixStep> babies;
    std::vector<MatrixStep> giants;
    std::vector<std::vector<MatrixTerm>> terms;  // by giant step
};

// out [2, q limbs, n] = Σ_j σ_j(Σ diagonal ⊙ σ_b(ct)), for ct [2, q limbs, n].
void multiply_matrix(const SwitchConstants& c, u64* out, const u64* ct, const MatrixPlan& plan);

}  // namespace lattice
