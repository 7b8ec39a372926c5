#include "base/cpu.hpp"

#include <atomic>
#include <stdexcept>

namespace lattice {
namespace {

constexpr const char* kNames[] = {"scalar", "avx2", "avx512ifma"};

std::vector<Isa> detect() {
    std::vector<Isa> found{Isa::scalar};
#if defined(LATTICE_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        found.push_back(Isa::avx2);
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512ifma");
        if (avx512) found.push_back(Isa::avx512ifma);
    }
#endif
    return found;
}

std::atomic<Isa>& chosen() {
    static std::atomic<Isa> isa{available_isas().back()};
    return isa;
}

}  // namespace

const std::vector<Isa>& available_isas() {
    static const std::vector<Isa> found = detect();
    return found;
}

Isa current_isa() { return chosen().load(std::memory_order_relaxed); }

void set_current_isa(Isa isa) {
    for (Isa known : available_isas()) {
        if (known == isa) {
            chosen().store(isa, std::memory_order_relaxed);
            return;
        }
    }
    throw std::invalid_argument(std::string("this machine cannot run ") + isa_name(isa));
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa isa_from_name(const std::string& name) {
    for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512ifma}) {
        if (name == isa_name(isa)) return isa;
    }
    throw std::invalid_argument("no instruction set is called \"" + name + "\": scalar, avx2 or avx512ifma");
}

}  // namespace lattice
