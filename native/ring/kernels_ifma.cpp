#include "ring/kernels_impl.hpp"
#include "ring/lanes_ifma.hpp"

namespace lattice {

const Kernels& ifma_kernels(u64 q) {
    static constexpr Kernels narrow = make_kernels<IfmaLanes<4>>();
    static constexpr Kernels medium = make_kernels<IfmaLanes<8>>();
    static constexpr Kernels wide = make_kernels<IfmaLanes<16>>();
    if (q >> 49) return narrow;
    return q >> 48 ? medium : wide;
}

}  // namespace lattice
