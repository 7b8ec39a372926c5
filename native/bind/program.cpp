// Whole programs: one call, no Python in between.
#include "bind/arrays.hpp"
#include "program/runner.hpp"

namespace lattice {
namespace {

std::vector<u64> words_of(const Input& words) { return {words.data(), words.data() + words.size()}; }

// Set from any thread while another one runs a plan.
struct CancelFlag {
    std::atomic<bool> set{false};
};

std::vector<std::size_t> polynomial_shape(const Plan& plan, std::size_t components, std::size_t level) {
    return {components, plan.limbs(level), plan.n()};
}

void check_weight(const Plan& plan, const PlanWeight& wanted, const Input& given) {
    const std::size_t each = plan.weight_limbs(wanted) * wanted.values;
    const std::size_t count = wanted.kind == WeightKind::plaintext ? 1 : wanted.count;
    if (given.size() != each * count) {
        throw std::invalid_argument("a weight has " + std::to_string(given.size()) + " words, not " +
                                    std::to_string(count) + " times " + std::to_string(each));
    }
}

KeyView check_key(const Plan& plan, const PlanKey& wanted, const Input& key) {
    const SwitchContext& c = plan.context(wanted.level);
    const bool fits = key.ndim() == 4 && key.shape(0) >= c.digits() && key.shape(1) == 2 &&
                      key.shape(2) >= c.limbs() && key.shape(3) == c.n();
    if (!fits) throw std::invalid_argument("a key does not fit: expected [digits, 2, limbs, N]");
    return {key.data(), key.shape(2)};
}

std::vector<Output> run(const Plan& plan, const std::vector<Input>& inputs, const std::vector<Input>& weights,
                        const std::vector<Input>& keys, const CancelFlag* cancel) {
    const bool all = inputs.size() == plan.inputs().size() && weights.size() == plan.weights().size() &&
                     keys.size() == plan.keys().size();
    if (!all) throw std::invalid_argument("other numbers of inputs, weights or keys than the plan has");
    PlanArguments arguments;
    if (cancel != nullptr) arguments.cancel = &cancel->set;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        require_shape(inputs[i], polynomial_shape(plan, 2, plan.inputs()[i]), "an input");
        arguments.inputs.push_back(inputs[i].data());
    }
    for (std::size_t w = 0; w < weights.size(); ++w) {
        check_weight(plan, plan.weights()[w], weights[w]);
        arguments.weights.push_back(weights[w].data());
    }
    for (std::size_t k = 0; k < keys.size(); ++k) arguments.keys.push_back(check_key(plan, plan.keys()[k], keys[k]));
    std::vector<Output> outputs;
    for (const RegisterType& type : plan.output_types()) {
        outputs.push_back(new_array(polynomial_shape(plan, type.components, type.level)));
        arguments.outputs.push_back(outputs.back().data());
    }
    nb::gil_scoped_release release;
    run_plan(plan, arguments);
    return outputs;
}

}  // namespace

void bind_program(nb::module_& m) {
    using namespace nb::literals;
    nb::exception<Cancelled>(m, "Cancelled");
    nb::class_<CancelFlag>(m, "CancelFlag")
        .def(nb::init<>())
        .def("set", [](CancelFlag& self) { self.set.store(true, std::memory_order_relaxed); })
        .def("is_set", [](const CancelFlag& self) { return self.set.load(std::memory_order_relaxed); });
    nb::class_<Plan>(m, "Plan")
        .def("__init__", [](Plan* self, const Input& words) { new (self) Plan(words_of(words)); },
             nb::arg("words").noconvert())
        .def("run", &run, nb::arg("inputs").noconvert(), nb::arg("weights").noconvert(), nb::arg("keys").noconvert(),
             nb::arg("cancel").none() = nb::none());
}

}  // namespace lattice
