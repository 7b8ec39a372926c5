// Which instruction sets this machine has, and which one the evaluator uses.
#pragma once

#include <string>
#include <vector>

namespace lattice {

enum class Isa { scalar = 0, avx2 = 1, avx512ifma = 2 };

// Compiled in and supported by this processor and operating system, slowest first.
const std::vector<Isa>& available_isas();

// The one in use; the fastest until somebody chooses another. Results never depend on it.
Isa current_isa();
void set_current_isa(Isa isa);

const char* isa_name(Isa isa);
Isa isa_from_name(const std::string& name);  // throws std::invalid_argument, naming what there is

}  // namespace lattice
