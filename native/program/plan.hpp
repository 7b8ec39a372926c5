// A program as plain numbers: what lattice.fhe.hal.plan makes of a checked program, for one call or for a file. Series are
// already lowered to products, constants to residues, and every register is freed after its last use.
//
// A plan is one array of 64-bit words:
//   magic, log2 N, levels, inputs, weights, keys, registers, outputs, words of code;
//   q primes in each level's modulus [levels]; number of special primes, q primes of the top level, special primes;
//   for each level: number of digits, then (start, end) of each;
//   for each input its level; for each weight (kind, level, count, values); for each key (element, level);
//   the output registers; the code.
// Each instruction is its Op, the number of its operands, and these. `Plan` reads nothing that it has not checked.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "hal/switch_constants.hpp"

namespace lattice {

enum class Op : u64 {
    input,           // out, input
    add,             // out, a, b
    subtract,        // out, a, b
    negate,          // out, a
    add_plain,       // out, a, weight
    multiply_plain,  // out, a, weight
    add_constant,    // out, a, residues…
    scale,           // out, a, residues…
    multiply,        // out, a, b
    relinearise,     // out, a, key
    rescale,         // out, a
    drop,            // out, a, level
    rotate,          // a, (out, key)…
    rotate_sum,      // out, a, keys…
    matrix,          // weight, inputs, outs, babies, giants (lists: their length, then they), then for each result and
                     // giant step the number of its terms and these, (input, baby, diagonal); steps are keys or kIdentity
    sum_plain,       // weight, inputs, outs, then for each result the number of its terms and these, (input, plaintext)
    sum_periodic,    // weight, inputs, outs
    free,            // a
    count,
};

constexpr u64 kPlanMagic = 0x316e616c5074614c;  // "LatPlan1"
constexpr u64 kIdentity = ~u64{0};
constexpr u64 kRelinearisation = 0;  // instead of a Galois element

enum class WeightKind : u64 { plaintext, plaintexts, diagonals, periodic, count };

struct PlanWeight {
    WeightKind kind;
    std::size_t level, count, values;  // values: of a periodic one, else N
};

struct PlanKey {
    u64 element;
    std::size_t level;
};

struct Step {
    Op op;
    std::span<const u64> operands;
};

// A register's type; no components: nothing there.
struct RegisterType {
    std::size_t components = 0, level = 0;
    bool operator==(const RegisterType&) const = default;
};

class Plan {
  public:
    // Throws std::invalid_argument unless every number of it is as it must be.
    explicit Plan(std::vector<u64> words);
    Plan(const Plan&) = delete;  // steps point into the words
    Plan& operator=(const Plan&) = delete;

    int log_n() const { return log_n_; }
    std::size_t n() const { return std::size_t{1} << log_n_; }
    std::size_t levels() const { return limbs_.size(); }
    std::size_t limbs(std::size_t level) const { return limbs_[level]; }
    Moduli moduli(std::size_t level) const { return {q_.begin(), q_.begin() + limbs_[level]}; }
    std::size_t special_limbs() const { return special_.size(); }
    // Only where there are special primes.
    const SwitchContext& context(std::size_t level) const { return *contexts_[level]; }

    const std::vector<std::size_t>& inputs() const { return inputs_; }  // their levels
    const std::vector<PlanWeight>& weights() const { return weights_; }
    const std::vector<PlanKey>& keys() const { return keys_; }
    const std::vector<std::size_t>& outputs() const { return outputs_; }
    const std::vector<RegisterType>& output_types() const { return output_types_; }
    std::size_t registers() const { return registers_; }
    const std::vector<Step>& steps() const { return steps_; }

    std::size_t weight_limbs(const PlanWeight& w) const {
        return limbs_[w.level] + (w.kind == WeightKind::diagonals ? special_.size() : 0);
    }

  private:
    std::vector<u64> words_;
    int log_n_ = 0;
    std::size_t registers_ = 0;
    std::vector<std::size_t> limbs_;
    Moduli q_, special_;
    std::vector<std::unique_ptr<SwitchContext>> contexts_;
    std::vector<std::size_t> inputs_;
    std::vector<PlanWeight> weights_;
    std::vector<PlanKey> keys_;
    std::vector<std::size_t> outputs_;
    std::vector<RegisterType> output_types_;
    std::vector<Step> steps_;
};

// Reads operands one after another; std::invalid_argument at the end.
class Operands {
  public:
    explicit Operands(std::span<const u64> words) : words_(words) {}
    u64 next() {
        if (at_ == words_.size()) throw std::invalid_argument("an instruction of the plan has too few operands");
        return words_[at_++];
    }
    std::span<const u64> list() { return take(next()); }
    std::span<const u64> take(u64 count) {
        if (count > left()) throw std::invalid_argument("an instruction of the plan has too few operands");
        const auto found = words_.subspan(at_, count);
        at_ += count;
        return found;
    }
    std::span<const u64> rest() { return take(left()); }
    std::size_t left() const { return words_.size() - at_; }

  private:
    std::span<const u64> words_;
    std::size_t at_ = 0;
};

}  // namespace lattice
