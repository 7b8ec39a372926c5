#include "ring/kernels_impl.hpp"
#include "ring/lanes_scalar.hpp"

namespace lattice {

const Kernels& scalar_kernels() {
    static constexpr Kernels kernels = make_kernels<ScalarLanes>();
    return kernels;
}

}  // namespace lattice
