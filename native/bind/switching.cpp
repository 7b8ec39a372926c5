// Key switching and what is made of it.
#include <nanobind/stl/map.h>
#include <nanobind/stl/tuple.h>

#include <array>
#include <map>

#include "bind/arrays.hpp"
#include "hal/key_switch.hpp"
#include "hal/matrix_product.hpp"
#include "hal/sums.hpp"

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

using MatrixTerms = std::vector<std::vector<std::vector<std::tuple<std::size_t, std::size_t, std::size_t>>>>;

// Terms with their turned ciphertexts numbered, and indices checked.
void fill_terms(MatrixPlan& plan, const SwitchContext& context, const Input& diagonals, const MatrixTerms& terms,
                std::size_t inputs) {
    TurnIndex turns(plan, inputs);
    for (std::size_t a = 0; a < terms.size(); ++a) {
        if (terms[a].size() != plan.giants.size()) throw std::invalid_argument("terms for every giant step of each result");
        const std::size_t before = plan.inner.size();
        for (std::size_t j = 0; j < terms[a].size(); ++j) {
            if (terms[a][j].empty()) continue;
            plan.inner.push_back({a, j, {}});
            for (const auto& [input, baby, diagonal] : terms[a][j]) {
                if (input >= inputs || baby >= plan.babies.size() || diagonal >= diagonals.shape(0)) {
                    throw std::invalid_argument("a term names an input, a step or a diagonal that is not there");
                }
                const u64* data = diagonals.data() + diagonal * context.limbs() * context.n();
                plan.inner.back().terms.push_back({turns(input, baby), data});
            }
        }
        if (plan.inner.size() == before) throw std::invalid_argument("a result has no term");
    }
}

std::vector<Output> matrix(const SwitchContext& context, const std::vector<Input>& cts, const Input& diagonals,
                           const std::map<u64, Input>& keys, const std::vector<u64>& babies,
                           const std::vector<u64>& giants, const MatrixTerms& terms) {
    const bool fits = diagonals.ndim() == 3 && diagonals.shape(1) == context.limbs() &&
                      diagonals.shape(2) == context.n() && !giants.empty() && !terms.empty();
    if (!fits) throw std::invalid_argument("expected diagonals [count, limbs, N], giant steps and results");
    const SwitchConstants& constants = context.constants();
    MatrixPlan plan{matrix_steps(context, constants, babies, keys), matrix_steps(context, constants, giants, keys), {}, {}};
    fill_terms(plan, context, diagonals, terms, cts.size());
    std::vector<const u64*> in;
    for (const Input& ct : cts) {
        require_shape(ct, {2, context.q_limbs(), context.n()}, "the ciphertext");
        in.push_back(ct.data());
    }
    std::vector<Output> outs;
    std::vector<u64*> to;
    for (std::size_t a = 0; a < terms.size(); ++a) {
        outs.push_back(new_ciphertext(context));
        to.push_back(outs.back().data());
    }
    nb::gil_scoped_release release;
    multiply_matrix(constants, to, in, plan);
    return outs;
}

// Ciphertexts [components, limbs, N], all alike, and as many results.
struct Summands {
    Ciphertexts in;
    std::vector<std::size_t> shape;
    std::size_t n;
    int log_n;

    Summands(const std::vector<Input>& cts, const Moduli& moduli) {
        if (cts.empty() || cts[0].ndim() != 3) throw std::invalid_argument("expected ciphertexts [components, limbs, N]");
        const Tensor t(cts[0], moduli.size());
        if (moduli.empty() || t.batch == 0) throw std::invalid_argument("expected ciphertexts [components, limbs, N]");
        shape = shape_of(cts[0]);
        for (const Input& ct : cts) {
            require_shape(ct, shape, "the ciphertext");
            in.data.push_back(ct.data());
        }
        in.components = t.batch;
        n = t.n;
        log_n = t.log_n;
    }

    std::vector<Output> outputs(std::size_t count, std::vector<u64*>& to) const {
        std::vector<Output> outs;
        for (std::size_t a = 0; a < count; ++a) {
            outs.push_back(new_array(shape));
            to.push_back(outs.back().data());
        }
        return outs;
    }
};

std::vector<Output> sum_of_plain(const std::vector<Input>& cts, const Input& plain, const SumTerms& terms,
                                 const Moduli& moduli) {
    const Summands s(cts, moduli);
    if (plain.ndim() != 3 || plain.shape(1) != moduli.size() || plain.shape(2) != s.n) {
        throw std::invalid_argument("expected plaintexts [count, limbs, N]");
    }
    for (const auto& pairs : terms) {
        for (const auto& [i, d] : pairs) {
            if (i >= cts.size() || d >= plain.shape(0)) throw std::invalid_argument("a term names what is not there");
        }
    }
    std::vector<const u64*> rows;
    for (std::size_t d = 0; d < plain.shape(0); ++d) rows.push_back(plain.data() + d * moduli.size() * s.n);
    std::vector<u64*> to;
    std::vector<Output> outs = s.outputs(terms.size(), to);
    nb::gil_scoped_release release;
    sum_plain(tables_of(moduli, s.log_n, current_isa()), to, s.in, rows, terms);
    return outs;
}

std::vector<Output> sum_of_periodic(const std::vector<Input>& cts, const Input& weights, const Moduli& moduli) {
    const Summands s(cts, moduli);
    const bool fits = weights.ndim() == 4 && weights.shape(1) == cts.size() && weights.shape(2) == moduli.size() &&
                      weights.shape(3) != 0 && s.n % weights.shape(3) == 0;
    if (!fits) throw std::invalid_argument("expected weights [outs, inputs, limbs, values], values a divisor of N");
    std::vector<u64*> to;
    std::vector<Output> outs = s.outputs(weights.shape(0), to);
    const u64* w = weights.data();
    const std::size_t values = weights.shape(3);
    nb::gil_scoped_release release;
    sum_periodic(tables_of(moduli, s.log_n, current_isa()), to, s.in, w, values);
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
        .def("matrix", &matrix, nb::arg("cts").noconvert(), nb::arg("diagonals").noconvert(), nb::arg("keys").noconvert(),
             "babies"_a, "giants"_a, "terms"_a)
        .def("decompose", &decompose_one, nb::arg("x").noconvert())
        .def("gadget_product", &gadget, nb::arg("digits").noconvert(), nb::arg("key").noconvert());
    m.def("sum_plain", &sum_of_plain, nb::arg("cts").noconvert(), nb::arg("plain").noconvert(), "terms"_a, "moduli"_a);
    m.def("sum_periodic", &sum_of_periodic, nb::arg("cts").noconvert(), nb::arg("weights").noconvert(), "moduli"_a);
}

}  // namespace lattice
