// Runs a whole plan: registers in native memory, each freed after its last use. Bits are those of the interpreter.
#pragma once

#include <atomic>
#include <stdexcept>
#include <vector>

#include "program/plan.hpp"

namespace lattice {

// An evaluation key, expanded: [digits, 2, limbs, n], of the level where it is used or a higher one.
struct PlanArguments {
    std::vector<const u64*> inputs;   // [2, limbs, n] at the inputs' levels
    std::vector<const u64*> weights;  // as the plan's types say, one after another
    std::vector<KeyView> keys;        // one for each of the plan's
    std::vector<u64*> outputs;        // [components, limbs, n] as output_types() say
    const std::atomic<bool>* cancel = nullptr;  // looked at before each step; none: runs to its end
};

// The run was cancelled after so many steps.
struct Cancelled : std::runtime_error {
    explicit Cancelled(std::size_t steps) : std::runtime_error(std::to_string(steps)) {}
};

// Throws Cancelled; the outputs are unspecified then. Sizes are the caller's duty. The plan may serve several threads at once.
void run_plan(const Plan& plan, const PlanArguments& arguments);

}  // namespace lattice
