// Key switching and what is made of it.
#include <nanobind/stl/map.h>

#include <array>
#include <map>

#include "bind/arrays.hpp"
#include "hal/key_switch.hpp"
#include "hal/matrix_product.hpp"

namespace lattice {
namespace {

// A key [≥ digits, 2, ≥ limbs, N]; never copied.
KeyView key_view(const Input& key, const SwitchContext& c) {
    const bool fits = key.ndim() == 4 && key.shape(0) >= c.digits() && key.shape(1) == 2 &&
                      key.shape(2) >= c.limbs() && key.shape(3) == c.n();
    if (!fits) throw std::invalid_argument("the key does not fit: expected [digits, 2, limbs, N]");
    return {key.data(), key.shape(2)};
}

std::size_t polynomial(const SwitchContext& context) { return context.q_limbs() * context.n(); }

Output new_ciphertext(const SwitchContext& context) { return new_array({2, context.q_limbs(), context.n()}); }

std::array<u64*, 2> halves(const SwitchContext& context, const Output& ct) {
    return {ct.data(), ct.data() + polynomial(context)};
}

Output key_switch(const SwitchContext& context, const Input& x, const Input& key) {
    require_shape(x, {context.q_limbs(), context.n()}, "the polynomial");
    Output out = new_ciphertext(context);
    const SwitchTarget target{{{key_view(key, context), nullptr}}, {}, halves(context, out)};
    const u64* input = x.data();
    nb::gil_scoped_release release;
    switch_keys(context.constants(), input, {target});
    return out;
}

Output relinearise(const SwitchContext& context, const Input& ct, const Input& key) {
    require_shape(ct, {3, context.q_limbs(), context.n()}, "the ciphertext");
    Output out = new_ciphertext(context);
    const u64* input = ct.data();
    SwitchTarget target{{{key_view(key, context), nullptr}}, {}, halves(context, out)};
    target.addends = {std::vector<Addend>{{input}}, std::vector<Addend>{{input + polynomial(context)}}};
    nb::gil_scoped_release release;
    switch_keys(context.constants(), input + 2 * polynomial(context), {target});
    return out;
}

// Galois elements with their keys.
std::vector<SwitchProduct> products(const SwitchContext& context, const SwitchConstants& constants,
                                    const std::vector<u64>& elements, const std::vector<Input>& keys) {
    if (elements.size() != keys.size()) throw std::invalid_argument("one key for each element");
    std::vector<SwitchProduct> all;
    for (std::size_t r = 0; r < keys.size(); ++r) {
        all.push_back({key_view(keys[r], context), &permutation(elements[r], constants.log_n, constants.isa)});
    }
    return all;
}

// One output [2, Q, N] for each element and key.
std::vector<Output> rotate_hoisted(const SwitchContext& context, const Input& ct, const std::vector<u64>& elements,
                                   const std::vector<Input>& keys) {
    require_shape(ct, {2, context.q_limbs(), context.n()}, "the ciphertext");
    const u64* input = ct.data();
    const SwitchConstants& constants = context.constants();
    std::vector<Output> outs;
    std::vector<SwitchTarget> targets;
    for (const SwitchProduct& product : products(context, constants, elements, keys)) {
        outs.push_back(new_ciphertext(context));
        targets.push_back({{product}, {}, halves(context, outs.back())});
        targets.back().addends[0] = {{input, product.by}};
    }
    nb::gil_scoped_release release;
    if (!targets.empty()) switch_keys(constants, input + polynomial(context), targets);
    return outs;
}

// ct + Σ σ(ct), with one division for the whole sum.
Output rotate_sum(const SwitchContext& context, const Input& ct, const std::vector<u64>& elements,
                  const std::vector<Input>& keys) {
    require_shape(ct, {2, context.q_limbs(), context.n()}, "the ciphertext");
    if (keys.empty()) throw std::invalid_argument("a sum of rotations takes at least one");
    const u64* input = ct.data();
    const SwitchConstants& constants = context.constants();
    Output out = new_ciphertext(context);
    SwitchTarget target{products(context, constants, elements, keys), {}, halves(context, out)};
    target.addends = {std::vector<Addend>{{input}}, std::vector<Addend>{{input + polynomial(context)}}};
    for (const SwitchProduct& product : target.products) target.addends[0].push_back({input, product.by});
    nb::gil_scoped_release release;
    switch_keys(constants, input + polynomial(context), {target});
    return out;
}

// Steps by Galois element; element 1 takes no key.
std::vector<MatrixStep> matrix_steps(const SwitchContext& context, const SwitchConstants& constants,
                                     const std::vector<u64>& elements, const std::map<u64, Input>& keys) {
    std::vector<MatrixStep> steps;
    for (u64 element : elements) {
        MatrixStep step{element == 1, {}};
        if (!step.identity) {
            const auto found = keys.find(element);
            if (found == keys.end()) throw std::invalid_argument("no key for element " + std::to_string(element));
            step.product = {key_view(found->second, context),
                            &permutation(element, constants.log_n, constants.isa)};
        }
        steps.push_back(step);
    }
    return steps;
}

using TermIndexes = std::vector<std::vector<std::pair<std::size_t, std::size_t>>>;

Output bsgs(const SwitchContext& context, const Input& ct, const Input& diagonals, const std::map<u64, Input>& keys,
            const std::vector<u64>& babies, const std::vector<u64>& giants, const TermIndexes& terms) {
    require_shape(ct, {2, context.q_limbs(), context.n()}, "the ciphertext");
    const bool fits = diagonals.ndim() == 3 && diagonals.shape(1) == context.limbs() &&
                      diagonals.shape(2) == context.n() && terms.size() == giants.size() && !giants.empty();
    if (!fits) throw std::invalid_argument("expected diagonals [count, limbs, N] and terms for every giant step");
    const SwitchConstants& constants = context.constants();
    MatrixPlan plan{matrix_steps(context, constants, babies, keys), matrix_steps(context, constants, giants, keys), {}};
    for (const auto& list : terms) {
        plan.terms.emplace_back();
        for (const auto& [baby, diagonal] : list) {
            if (baby >= babies.size() || diagonal >= diagonals.shape(0)) {
                throw std::invalid_argument("a term names a step or a diagonal that is not there");
            }
            plan.terms.back().push_back({baby, diagonals.data() + diagonal * context.limbs() * context.n()});
        }
    }
    Output out = new_ciphertext(context);
    u64* dst = out.data();
    const u64* src = ct.data();
    nb::gil_scoped_release release;
    multiply_matrix(constants, dst, src, plan);
    return out;
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
    gadget_product(context.constants(), dst, src, view);
    return out;
}

}  // namespace

void bind_switching(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<SwitchContext>(m, "SwitchContext")
        .def(nb::init<std::size_t, Moduli, Moduli, std::vector<LimbRange>>(), "n"_a, "q_moduli"_a, "special"_a, "digits"_a)
        .def("key_switch", &key_switch, nb::arg("x").noconvert(), nb::arg("key").noconvert())
        .def("relinearise", &relinearise, nb::arg("ct").noconvert(), nb::arg("key").noconvert())
        .def("rotate_hoisted", &rotate_hoisted, nb::arg("ct").noconvert(), "elements"_a, nb::arg("keys").noconvert())
        .def("rotate_sum", &rotate_sum, nb::arg("ct").noconvert(), "elements"_a, nb::arg("keys").noconvert())
        .def("bsgs", &bsgs, nb::arg("ct").noconvert(), nb::arg("diagonals").noconvert(), nb::arg("keys").noconvert(), "babies"_a,
             "giants"_a, "terms"_a)
        .def("decompose", &decompose_one, nb::arg("x").noconvert())
        .def("gadget_product", &gadget, nb::arg("digits").noconvert(), nb::arg("key").noconvert());
}

}  // namespace lattice
