#include "ring/kernels_impl.hpp"
#include "ring/lanes_avx2.hpp"

namespace lattice {

const Kernels& avx2_kernels() {
    static constexpr Kernels kernels = make_kernels<Avx2Lanes>();
    return kernels;
}

}  // namespace lattice
