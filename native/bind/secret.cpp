// The client's corner: the only binding that sees a secret.
#include "bind/arrays.hpp"
#include "client/secret_buffer.hpp"

namespace lattice {
namespace {

using Small = nb::ndarray<const std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using WritableSmall = nb::ndarray<std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<nb::c_contig, nb::device::cpu>;

void require_length(std::size_t got, const SecretBuffer& secret) {
    if (got != secret.n()) throw std::invalid_argument("expected " + std::to_string(secret.n()) + " coefficients");
}

Output decrypt(SecretBuffer& secret, const Input& components, const Moduli& moduli) {
    const Tensor t(components, moduli.size());
    require_shape(components, {t.batch, t.limbs, secret.n()}, "a ciphertext");
    if (t.batch == 0) throw std::invalid_argument("a ciphertext has components");
    Output out = new_array({t.limbs, t.n});
    u64* dst = out.data();
    const u64* src = components.data();
    nb::gil_scoped_release release;
    secret.decrypt(dst, src, t.batch, moduli);
    return out;
}

Output multiply(SecretBuffer& secret, const Input& x, const Moduli& moduli) {
    const Tensor t(x, moduli.size());
    require_shape(x, {t.limbs, secret.n()}, "the polynomial");
    Output out = new_array({t.limbs, t.n});
    u64* dst = out.data();
    const u64* src = x.data();
    nb::gil_scoped_release release;
    secret.multiply(dst, src, moduli);
    return out;
}

nb::object refuse(const SecretBuffer&, nb::args) {
    throw nb::type_error("a secret is not pickled or copied");
}

}  // namespace

void bind_secret(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<SecretBuffer>(m, "SecretBuffer")
        .def(nb::init<std::size_t>(), "n"_a)
        .def("sample_ternary",
             [](SecretBuffer& s, nb::bytes bytes) {
                 s.sample_ternary(static_cast<const std::uint8_t*>(bytes.data()), bytes.size());
             },
             "uniform"_a)
        .def("set", [](SecretBuffer& s, const Small& from) { require_length(from.size(), s); s.set(from.data()); },
             nb::arg("coefficients").noconvert())
        .def("get_into",
             [](const SecretBuffer& s, const WritableSmall& to) { require_length(to.size(), s); s.get(to.data()); },
             nb::arg("out").noconvert())
        .def("decrypt", &decrypt, nb::arg("components").noconvert(), "moduli"_a)
        .def("multiply", &multiply, nb::arg("x").noconvert(), "moduli"_a)
        .def("wipe", &SecretBuffer::wipe)
        .def_prop_ro("wiped", &SecretBuffer::wiped)
        .def_prop_ro("locked", &SecretBuffer::locked)
        .def("__len__", &SecretBuffer::n)
        .def("__repr__",
             [](const SecretBuffer& s) {
                 return "SecretBuffer(n=" + std::to_string(s.n()) + (s.wiped() ? ", wiped)" : ")");
             })
        .def("__reduce__", &refuse)
        .def("__reduce_ex__", &refuse)
        .def("__copy__", &refuse)
        .def("__deepcopy__", &refuse);
    m.def("zeroise", [](const Writable& array) { wipe(array.data(), array.nbytes()); }, nb::arg("array").noconvert());
}

}  // namespace lattice
