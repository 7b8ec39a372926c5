// The expansion of public seeds.
#include "bind/arrays.hpp"
#include "bind/uniform.hpp"

namespace lattice {
namespace {

void expand_into(const PublicHalf& half, const WritableWords& out, const std::vector<u64>& moduli) {
    const UniformPolynomial& a = half.polynomial;
    if (moduli.empty() || out.size() % moduli.size() != 0) throw std::invalid_argument("no room for whole limbs");
    half.require(moduli.size(), out.size() / moduli.size());
    u64* dst = out.data();
    const std::size_t n = out.size() / moduli.size();
    nb::gil_scoped_release release;
    a.expand(dst, n, moduli, current_isa());
}

}  // namespace

void bind_seeds(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<PublicHalf>(m, "UniformPolynomial")
        .def("__init__",
             [](PublicHalf* self, nb::bytes seed, u64 kind, u64 digit, std::vector<u64> indices) {
                 const auto* bytes = static_cast<const std::uint8_t*>(seed.data());
                 new (self) PublicHalf{UniformPolynomial(bytes, seed.size(), kind, digit, std::move(indices)), {}, 0};
             },
             "seed"_a, "kind"_a, "digit"_a, "indices"_a)
        .def("__init__",
             [](PublicHalf* self, const Input& expanded) {
                 if (expanded.ndim() != 2) throw std::invalid_argument("expected an array [limbs, N]");
                 new (self) PublicHalf{UniformPolynomial(expanded.data(), expanded.shape(0), expanded.shape(1)), expanded,
                                       expanded.shape(1)};
             },
             nb::arg("expanded").noconvert())
        .def("expand_into", &expand_into, nb::arg("out").noconvert(), "moduli"_a);
    m.def("draw_kernel", [] { return std::string(draw_kernel_name(current_isa())); });
}

}  // namespace lattice
