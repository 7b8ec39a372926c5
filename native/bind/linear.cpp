// Linear models: sums of seeded ciphertexts, and the blinding of coefficients.
#include <nanobind/stl/optional.h>

#include "bind/uniform.hpp"
#include "client/sampling.hpp"
#include "hal/linear_model.hpp"

namespace lattice {
namespace {

using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Output sum_of_seeded(const std::vector<Input>& c0, const std::vector<nb::bytes>& seeds, u64 kind, const Input& weights,
                     const std::optional<Input>& bias, const Moduli& moduli) {
    if (c0.empty() || c0.size() != seeds.size()) throw std::invalid_argument("one seed for each ciphertext");
    const Tensor t(c0[0], moduli.size());
    std::vector<u64> indices(moduli.size());
    for (std::size_t limb = 0; limb < moduli.size(); ++limb) indices[limb] = limb;
    std::vector<SeededInput> inputs;
    for (std::size_t i = 0; i < c0.size(); ++i) {
        require_shape(c0[i], {t.limbs, t.n}, "a ciphertext's half");
        const auto* seed = static_cast<const std::uint8_t*>(seeds[i].data());
        inputs.push_back({c0[i].data(), UniformPolynomial(seed, seeds[i].size(), kind, 0, indices)});
    }
    if (weights.ndim() != 4) throw std::invalid_argument("expected weights [outs, inputs, limbs, values]");
    const std::size_t outs = weights.shape(0), values = weights.shape(3);
    require_shape(weights, {outs, c0.size(), t.limbs, values}, "the weights");
    if (bias) require_shape(*bias, {outs, t.limbs, t.n}, "the bias");
    Output out = new_array({outs, 2, t.limbs, t.n});
    u64* dst = out.data();
    const u64 *w = weights.data(), *b = bias ? bias->data() : nullptr;
    nb::gil_scoped_release release;
    sum_seeded(dst, outs, inputs, w, values, b, moduli, t.log_n);
    return out;
}

std::vector<std::int64_t> wide_noise(const Bytes& words, std::size_t n, int bits) {
    if (bits < 1 || bits > 48 || words.size() < 8 * n) throw std::invalid_argument("too few bytes, or too wide a noise");
    std::vector<std::int64_t> out(n);
    const u64 mask = (u64{1} << (bits + 1)) - 1;
    for (std::size_t i = 0; i < n; ++i) {
        u64 word = 0;
        for (int k = 0; k < 8; ++k) word |= static_cast<u64>(words.data()[8 * i + k]) << (8 * k);
        out[i] = static_cast<std::int64_t>(word & mask) - (std::int64_t{1} << bits);
    }
    return out;
}

Output blinded(const Input& result, const Input& b, const PublicHalf& a, const Bytes& u, const Bytes& e,
               const Bytes& flood, int eta, int flood_bits, const Bytes& kept, const Moduli& moduli) {
    const Tensor t(result, moduli.size());
    require_shape(result, {2, t.limbs, t.n}, "the result");
    require_shape(b, {t.limbs, t.n}, "the public key");
    a.require(t.limbs, t.n);
    if (kept.size() != t.n) throw std::invalid_argument("one byte for each coefficient");
    for (const u64 q : moduli) {
        if (q >> flood_bits < 2) throw std::invalid_argument("the noise is wider than a prime");
    }
    Output out = new_array({2, t.limbs, t.n});
    u64* dst = out.data();
    const u64 *from = result.data(), *half = b.data();
    nb::gil_scoped_release release;
    std::vector<std::int8_t> ephemeral(t.n), error(t.n);
    sample_ternary(ephemeral.data(), t.n, u.data(), u.size());
    sample_error(error.data(), t.n, e.data(), e.size(), eta);
    const auto noise = wide_noise(flood, t.n, flood_bits);
    const CoefficientBlinding by{half, &a.polynomial, ephemeral.data(), error.data(), noise.data(), kept.data()};
    blind_coefficients(dst, from, by, moduli, t.log_n);
    return out;
}

}  // namespace

void bind_linear(nb::module_& m) {
    using namespace nb::literals;
    m.def("sum_seeded", &sum_of_seeded, "c0"_a, "seeds"_a, "kind"_a, nb::arg("weights").noconvert(),
          nb::arg("bias").none(), "moduli"_a);
    m.def("blind_coefficients", &blinded, nb::arg("result").noconvert(), nb::arg("b").noconvert(), "a"_a,
          nb::arg("u").noconvert(), nb::arg("e").noconvert(), nb::arg("flood").noconvert(), "eta"_a, "flood_bits"_a,
          nb::arg("kept").noconvert(), "moduli"_a);
}

}  // namespace lattice
