// The Python module lattice.fhe._native: numpy arrays in and out, no copies, the GIL released while it works.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "base/cpu.hpp"
#include "ring/kernels.hpp"

namespace nb = nanobind;

namespace lattice {
namespace {

using Input = nb::ndarray<const u64, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<nb::numpy, u64, nb::c_contig>;

int log2_of(std::size_t n) {
    int log_n = 0;
    while ((std::size_t{1} << log_n) < n) ++log_n;
    if ((std::size_t{1} << log_n) != n) throw std::invalid_argument("N is not a power of two");
    return log_n;
}

// A tensor [..., limbs, N].
struct Shape {
    std::size_t batch = 1, limbs, n;
    int log_n;
    Shape(const Input& x, const std::vector<u64>& moduli) {
        if (x.ndim() < 2) throw std::invalid_argument("expected an array [..., limbs, N]");
        limbs = x.shape(x.ndim() - 2);
        n = x.shape(x.ndim() - 1);
        if (limbs != moduli.size()) {
            throw std::invalid_argument("the array has " + std::to_string(limbs) + " limbs for " +
                                        std::to_string(moduli.size()) + " moduli");
        }
        log_n = log2_of(n);
        for (std::size_t d = 0; d + 2 < x.ndim(); ++d) batch *= x.shape(d);
    }
};

Output new_array(std::size_t ndim, const std::size_t* shape) {
    struct Owner {
        Buffer buffer;
    };
    std::size_t words = 1;
    for (std::size_t d = 0; d < ndim; ++d) words *= shape[d];
    auto* owner = new Owner{Buffer(words)};
    nb::capsule capsule(owner, [](void* p) noexcept { delete static_cast<Owner*>(p); });
    return Output(owner->buffer.data(), ndim, shape, capsule);
}

Output like(const Input& x) {
    std::vector<std::size_t> shape(x.ndim());
    for (std::size_t d = 0; d < x.ndim(); ++d) shape[d] = x.shape(d);
    return new_array(shape.size(), shape.data());
}

std::vector<const NttTable*> tables_for(const std::vector<u64>& moduli, int log_n) {
    std::vector<const NttTable*> tables;
    for (u64 q : moduli) tables.push_back(&ntt_table(q, log_n));
    return tables;
}

template <class Each>
Output per_limb(const Input& x, const std::vector<u64>& moduli, Each each) {
    const Shape shape(x, moduli);
    Output out = like(x);
    const auto tables = tables_for(moduli, shape.log_n);
    u64* dst = out.data();
    nb::gil_scoped_release release;
    for (std::size_t b = 0; b < shape.batch; ++b) {
        for (std::size_t k = 0; k < shape.limbs; ++k) {
            const std::size_t offset = (b * shape.limbs + k) * shape.n;
            each(dst + offset, offset, k, *tables[k]);
        }
    }
    return out;
}

Output ntt(const Input& x, const std::vector<u64>& moduli) {
    const u64* src = x.data();
    return per_limb(x, moduli, [=](u64* dst, std::size_t at, std::size_t, const NttTable& table) {
        table.kernels->forward(dst, src + at, table);
    });
}

Output intt(const Input& x, const std::vector<u64>& moduli) {
    const u64* src = x.data();
    return per_limb(x, moduli, [=](u64* dst, std::size_t at, std::size_t, const NttTable& table) {
        table.kernels->inverse(dst, src + at, table);
    });
}

Output mul(const Input& x, const Input& y, const std::vector<u64>& moduli) {
    const u64* a = x.data();
    const u64* b = y.data();
    return per_limb(x, moduli, [=](u64* dst, std::size_t at, std::size_t, const NttTable& table) {
        table.kernels->mul(dst, a + at, b + at, table.n(), table.modulus);
    });
}

}  // namespace
}  // namespace lattice

NB_MODULE(_native, module) {
    using namespace lattice;
    module.def("available_isas", [] {
        std::vector<std::string> names;
        for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
        return names;
    });
    module.def("isa", [] { return std::string(isa_name(current_isa())); });
    module.def("set_isa", [](const std::string& name) { set_current_isa(isa_from_name(name)); });
    module.def("root", [](u64 q, std::size_t n) { return ntt_table(q, log2_of(n)).root; });
    module.def("ntt", &ntt, nb::arg("x"), nb::arg("moduli"));
    module.def("intt", &intt, nb::arg("x"), nb::arg("moduli"));
    module.def("mul", &mul, nb::arg("x"), nb::arg("y"), nb::arg("moduli"));
}
