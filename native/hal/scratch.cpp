#include "hal/scratch.hpp"

namespace lattice {

Scratch& scratch() {
    thread_local Scratch mine;
    return mine;
}

}  // namespace lattice
