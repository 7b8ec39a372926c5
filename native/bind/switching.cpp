// Key switching and what is made of it.
#include "bind/arrays.hpp"
#include "hal/key_switch.hpp"

namespace lattice {
namespace {

// A key [≥ digits, 2, ≥ limbs, N]; never copied.
KeyView key_view(const Input& key, const SwitchContext& c) {
    const bool fits = key.ndim() == 4 && key.shape(0) >= c.digits() && key.shape(1) == 2 &&
                      key.shape(2) >= c.limbs() && key.shape(3) == c.n();
    if (!fits) throw std::invalid_argument("the key does not fit: expected [digits, 2, limbs, N]");
    return {key.data(), key.shape(2)};
}

Output key_switch(const SwitchContext& context, const Input& x, const Input& key) {
    require_shape(x, {context.q_limbs(), context.n()}, "the polynomial");
    Output out = new_array({2, context.q_limbs(), context.n()});
    SwitchTarget target{key_view(key, context), nullptr, {}, {}};
    const std::size_t half = context.q_limbs() * context.n();
    target.out = {out.data(), out.data() + half};
    const u64* input = x.data();
    nb::gil_scoped_release release;
    switch_keys(context.constants(), input, {target});
    return out;
}

Output relinearise(const SwitchContext& context, const Input& ct, const Input& key) {
    require_shape(ct, {3, context.q_limbs(), context.n()}, "the ciphertext");
    Output out = new_array({2, context.q_limbs(), context.n()});
    SwitchTarget target{key_view(key, context), nullptr, {}, {}};
    const std::size_t half = context.q_limbs() * context.n();
    const u64* input = ct.data();
    target.out = {out.data(), out.data() + half};
    target.addend = {Addend{input, nullptr}, Addend{input + half, nullptr}};
    nb::gil_scoped_release release;
    switch_keys(context.constants(), input + 2 * half, {target});
    return out;
}

// One output [2, Q, N] for each element and key.
std::vector<Output> rotate_hoisted(const SwitchContext& context, const Input& ct, const std::vector<u64>& elements,
                                   const std::vector<Input>& keys) {
    require_shape(ct, {2, context.q_limbs(), context.n()}, "the ciphertext");
    if (elements.size() != keys.size()) throw std::invalid_argument("one key for each element");
    const std::size_t half = context.q_limbs() * context.n();
    const u64* input = ct.data();
    const SwitchConstants& constants = context.constants();
    std::vector<Output> outs;
    std::vector<SwitchTarget> targets;
    for (std::size_t r = 0; r < keys.size(); ++r) {
        outs.push_back(new_array({2, context.q_limbs(), context.n()}));
        const Permutation& by = permutation(elements[r], constants.log_n, constants.isa);
        targets.push_back({key_view(keys[r], context), &by, {outs[r].data(), outs[r].data() + half}, {}});
        targets.back().addend[0] = {input, &by};
    }
    nb::gil_scoped_release release;
    if (!targets.empty()) switch_keys(constants, input + half, targets);
    return outs;
}

Output decompose_one(const SwitchContext& context, const Input& x) {
    require_shape(x, {context.q_limbs(), context.n()}, "the polynomial");
    Output out = new_array({context.digits(), context.limbs(), context.n()});
    u64* digits = out.data();
    const u64* input = x.data();
    nb::gil_scoped_release release;
    decompose(context.constants(), digits, input);
    return out;
}

Output gadget(const SwitchContext& context, const Input& digits, const Input& key) {
    require_shape(digits, {context.digits(), context.limbs(), context.n()}, "the digits");
    const KeyView view = key_view(key, context);
    Output out = new_array({2, context.limbs(), context.n()});
    u64* dst = out.data();
    const u64* src = digits.data();
    nb::gil_scoped_release release;
    gadget_product(context.constants(), dst, src, context.limbs() * context.n(), view);
    return out;
}

}  // namespace

void bind_switching(nb::module_& m) {
    using namespace nb::literals;
    using Ranges = std::vector<std::pair<std::size_t, std::size_t>>;
    nb::class_<SwitchContext>(m, "SwitchContext")
        .def(nb::init<std::size_t, Moduli, Moduli, Ranges>(), "n"_a, "q_moduli"_a, "special"_a, "digits"_a)
        .def("key_switch", &key_switch, "x"_a, nb::arg("key").noconvert())
        .def("relinearise", &relinearise, "ct"_a, nb::arg("key").noconvert())
        .def("rotate_hoisted", &rotate_hoisted, "ct"_a, "elements"_a, nb::arg("keys").noconvert())
        .def("decompose", &decompose_one, "x"_a)
        .def("gadget_product", &gadget, "digits"_a, nb::arg("key").noconvert());
}

}  // namespace lattice
