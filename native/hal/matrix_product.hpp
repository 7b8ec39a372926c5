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
    std::vector<MatrixTurn> turns;
    std::vector<MatrixInner> inner;  // by result; every result has one
};

// Numbers the turns of a plan as terms ask for them.
class TurnIndex {
  public:
    TurnIndex(MatrixPlan& plan, std::size_t inputs) : plan_(plan), index_(inputs * plan.babies.size(), kNone) {}
    std::size_t operator()(std::size_t input, std::size_t baby) {
        std::size_t& found = index_[input * plan_.babies.size() + baby];
        if (found == kNone) {
            found = plan_.turns.size();
            plan_.turns.push_back({input, baby});
        }
        return found;
    }

  private:
    static constexpr std::size_t kNone = ~std::size_t{0};
    MatrixPlan& plan_;
    std::vector<std::size_t> index_;
};

// out[a] [2, q limbs, n] = Σ_j σ_j(Σ diagonal ⊙ σ_b(in[i])), for in[i] [2, q limbs, n].
void multiply_matrix(const SwitchConstants& c, const std::vector<u64*>& out, const std::vector<const u64*>& in,
                     const MatrixPlan& plan);

}  // namespace lattice
