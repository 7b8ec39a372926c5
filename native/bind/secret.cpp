// The client's corner: the only binding that sees a secret.
#include <nanobind/stl/optional.h>

#include <memory>

#include "bind/uniform.hpp"
#include "client/encryption.hpp"
#include "client/sampling.hpp"
#include "client/secret_buffer.hpp"

namespace lattice {
namespace {

using Small = nb::ndarray<const std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using WritableSmall = nb::ndarray<std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using WritableBytes = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<nb::c_contig, nb::device::cpu>;
using LockedBytes = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>, nb::c_contig>;

void require_length(std::size_t got, std::size_t wanted, const char* what) {
    if (got != wanted) throw std::invalid_argument("expected " + std::to_string(wanted) + " " + what);
}

void require_size(const WritableWords& out, std::size_t words) { require_length(out.size(), words, "words of room"); }

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

void encrypt_into(SecretBuffer& secret, const WritableWords& out, const PublicHalf& a, const Bytes& error, int eta,
                  const Moduli& moduli, const std::optional<Input>& plain, const std::optional<Moduli>& gadget,
                  u64 element) {
    require_size(out, moduli.size() * secret.n());
    a.require(moduli.size(), secret.n());
    if (plain) require_shape(*plain, {moduli.size(), secret.n()}, "the plaintext");
    const Hidden hidden{plain ? plain->data() : nullptr, gadget ? &*gadget : nullptr, element};
    u64* dst = out.data();
    const std::uint8_t* bytes = error.data();
    const std::size_t count = error.size();
    nb::gil_scoped_release release;
    const auto e = SmallPolynomial::error(secret.n(), bytes, count, eta);
    secret.encrypt(dst, a.polynomial, e.data(), hidden, moduli);
}

Output zero(const Input& b, const PublicHalf& a, const Bytes& u, const Bytes& e0, const Bytes& e1, int eta,
            const Moduli& moduli) {
    const Tensor t(b, moduli.size());
    require_shape(b, {t.limbs, t.n}, "the public key");
    a.require(t.limbs, t.n);
    Output out = new_array({2, t.limbs, t.n});
    u64* dst = out.data();
    const u64* half = b.data();
    nb::gil_scoped_release release;
    const auto ephemeral = SmallPolynomial::ternary(t.n, u.data(), u.size());
    const auto first = SmallPolynomial::error(t.n, e0.data(), e0.size(), eta);
    const auto second = SmallPolynomial::error(t.n, e1.data(), e1.size(), eta);
    const std::int8_t* const e[2] = {first.data(), second.data()};
    encrypt_zero(dst, half, a.polynomial, ephemeral.data(), e, moduli, t.log_n);
    return out;
}

// An array in locked memory that is wiped as soon as nobody refers to it.
LockedBytes secret_bytes(std::size_t count) {
    auto owner = std::make_unique<SecretScratch>(count);
    auto* data = static_cast<std::uint8_t*>(owner->data());
    nb::capsule capsule(owner.get(), [](void* p) noexcept { delete static_cast<SecretScratch*>(p); });
    owner.release();
    return LockedBytes(data, {count}, capsule);
}

nb::object refuse(const SecretBuffer&, nb::args) {
    throw nb::type_error("a secret is not pickled or copied");
}

}  // namespace

void bind_secret(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<SecretBuffer>(m, "SecretBuffer")
        .def(nb::init<std::size_t>(), "n"_a)
        .def("sample_ternary", [](SecretBuffer& s, const Bytes& b) { s.sample_ternary(b.data(), b.size()); },
             nb::arg("uniform").noconvert())
        .def("set",
             [](SecretBuffer& s, const Small& from) {
                 require_length(from.size(), s.n(), "coefficients");
                 s.set(from.data());
             },
             nb::arg("coefficients").noconvert())
        .def("get_into",
             [](const SecretBuffer& s, const WritableSmall& to) {
                 require_length(to.size(), s.n(), "coefficients");
                 s.get(to.data());
             },
             nb::arg("out").noconvert())
        .def("pack_into",
             [](const SecretBuffer& s, const WritableBytes& to) {
                 require_length(to.size(), s.n() / 4, "bytes");
                 s.pack(to.data());
             },
             nb::arg("out").noconvert())
        .def("unpack",
             [](SecretBuffer& s, const Bytes& from) {
                 require_length(from.size(), s.n() / 4, "bytes");
                 s.unpack(from.data());
             },
             nb::arg("packed").noconvert())
        .def("decrypt", &decrypt, nb::arg("components").noconvert(), "moduli"_a)
        .def("multiply", &multiply, nb::arg("x").noconvert(), "moduli"_a)
        .def("encrypt_into", &encrypt_into, nb::arg("out").noconvert(), "a"_a, nb::arg("error").noconvert(), "eta"_a,
             "moduli"_a, nb::arg("plain").noconvert() = nb::none(), "gadget"_a = nb::none(), "element"_a = 0)
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
    m.def("encrypt_zero", &zero, nb::arg("b").noconvert(), "a"_a, nb::arg("u").noconvert(), nb::arg("e0").noconvert(),
          nb::arg("e1").noconvert(), "eta"_a, "moduli"_a);
    m.def("secret_bytes", &secret_bytes, "count"_a);
    m.def("fill_random", [](const WritableBytes& out) { fill_random(out.data(), out.size()); },
          nb::arg("out").noconvert());
    m.def("zeroise", [](const Writable& array) { wipe(array.data(), array.nbytes()); }, nb::arg("array").noconvert());
}

}  // namespace lattice
