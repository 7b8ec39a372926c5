// numpy arrays on this side of the border: uint64, C-contiguous, [..., limbs, N].
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "base/memory.hpp"
#include "hal/conversion.hpp"

namespace lattice {

namespace nb = nanobind;

using Input = nb::ndarray<const u64, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::numpy, u64, nb::c_contig>;

// A new array in recycled, aligned memory; contents undefined.
Output new_array(const std::vector<std::size_t>& shape);

std::vector<std::size_t> shape_of(const Input& x);

struct Tensor {
    std::size_t batch, limbs, n;
    int log_n;

    Tensor(const Input& x, std::size_t expected_limbs);
    std::size_t polynomial() const { return limbs * n; }
};

void require_shape(const Input& x, const std::vector<std::size_t>& shape, const char* what);

void bind_primitives(nb::module_& module);
void bind_switching(nb::module_& module);
void bind_secret(nb::module_& module);
void bind_seeds(nb::module_& module);
void bind_linear(nb::module_& module);
void bind_program(nb::module_& module);

}  // namespace lattice
