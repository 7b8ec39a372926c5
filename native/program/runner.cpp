#include "program/runner.hpp"

#include <algorithm>

#include "base/pool.hpp"
#include "hal/division.hpp"
#include "hal/key_switch.hpp"
#include "hal/matrix_product.hpp"
#include "hal/sums.hpp"

namespace lattice {
namespace {

constexpr std::size_t kWordsWorthSharing = 1 << 15;  // as in the primitives: below, waking a thread costs more

struct Register {
    RegisterType type;
    const u64* data = nullptr;
    Buffer own;  // none: an input
};

class Runner {
  public:
    Runner(const Plan& plan, const PlanArguments& arguments)
        : plan_(plan), arguments_(arguments), n_(plan.n()), isa_(current_isa()), registers_(plan.registers()),
          tables_(tables_of(plan.moduli(plan.levels() - 1), plan.log_n(), isa_)) {}

    void run() {
        const std::atomic<bool>* const cancel = arguments_.cancel;
        for (std::size_t done = 0; done < plan_.steps().size(); ++done) {
            if (cancel != nullptr && cancel->load(std::memory_order_relaxed)) throw Cancelled(done);
            one(plan_.steps()[done]);
        }
        for (std::size_t k = 0; k < arguments_.outputs.size(); ++k) {
            const Register& r = registers_[plan_.outputs()[k]];
            std::copy(r.data, r.data + r.type.components * plan_.limbs(r.type.level) * n_, arguments_.outputs[k]);
        }
    }

  private:
    void one(const Step& step) {
        Operands o(step.operands);
        switch (step.op) {
            case Op::input: return input(o);
            case Op::add: return sum(o, false);
            case Op::subtract: return sum(o, true);
            case Op::negate: return negate(o);
            case Op::add_plain: return add_plain(o);
            case Op::multiply_plain: return multiply_plain(o);
            case Op::add_constant: return add_constant(o);
            case Op::scale: return scale(o);
            case Op::multiply: return multiply(o);
            case Op::relinearise: return relinearise(o);
            case Op::rescale: return rescale(o);
            case Op::drop: return drop(o);
            case Op::rotate: return rotate(o);
            case Op::rotate_sum: return rotate_sum(o);
            case Op::matrix: return matrix(o);
            case Op::sum_plain: return sums(o);
            case Op::sum_periodic: return periodic(o);
            case Op::free: registers_[o.next()] = {}; return;
            case Op::count: return;
        }
    }

    const Register& get(u64 r) const { return registers_[r]; }
    std::size_t limbs(const RegisterType& type) const { return plan_.limbs(type.level); }
    const SwitchConstants& constants(std::size_t level) const { return plan_.context(level).constants(); }
    Tables tables(std::size_t level) const { return {tables_.begin(), tables_.begin() + plan_.limbs(level)}; }
    std::size_t component(const RegisterType& type) const { return limbs(type) * n_; }

    u64* make(u64 r, RegisterType type) {
        Register& made = registers_[r];
        made.type = type;
        made.own = Buffer(type.components * component(type));
        made.data = made.own.data();
        return made.own.data();
    }

    // One call for each limb of `count` polynomials at a level: (row, its table).
    template <class Body>
    void rows(std::size_t count, std::size_t level, Body body) const {
        const std::size_t limbs = plan_.limbs(level);
        const auto one_row = [&](std::size_t row) { body(row * n_, *tables_[row % limbs]); };
        if (count * limbs * n_ >= kWordsWorthSharing) return parallel(count * limbs, one_row);
        for (std::size_t row = 0; row < count * limbs; ++row) one_row(row);
    }

    void input(Operands& o) {
        const u64 out = o.next(), index = o.next();
        registers_[out] = {{2, plan_.inputs()[index]}, arguments_.inputs[index], {}};
    }

    // Where one operand has three components and the other two, the third is taken as it is, or negated.
    void sum(Operands& o, bool negative) {
        const u64 out = o.next();
        const Register &a = get(o.next()), &b = get(o.next());
        const std::size_t most = std::max(a.type.components, b.type.components);
        const std::size_t shared = std::min(a.type.components, b.type.components);
        u64* to = make(out, {most, a.type.level});
        rows(shared, a.type.level, [&](std::size_t at, const NttTable& t) {
            (negative ? t.kernels->sub : t.kernels->add)(to + at, a.data + at, b.data + at, n_, t.modulus);
        });
        if (most == shared) return;
        const std::size_t tail = shared * component(a.type);
        const Register& longer = a.type.components == most ? a : b;
        rows(1, a.type.level, [&](std::size_t at, const NttTable& t) {
            const u64* from = longer.data + tail + at;
            if (negative && &longer == &b) {
                t.kernels->neg(to + tail + at, from, n_, t.modulus);
            } else {
                std::copy(from, from + n_, to + tail + at);
            }
        });
    }

    void negate(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        u64* to = make(out, a.type);
        rows(a.type.components, a.type.level, [&](std::size_t at, const NttTable& t) {
            t.kernels->neg(to + at, a.data + at, n_, t.modulus);
        });
    }

    void add_plain(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const u64* plain = arguments_.weights[o.next()];
        u64* to = make(out, a.type);
        rows(1, a.type.level, [&](std::size_t at, const NttTable& t) {
            t.kernels->add(to + at, a.data + at, plain + at, n_, t.modulus);
        });
        copy_rest(a, to);
    }

    // All components but the first.
    void copy_rest(const Register& a, u64* to) const {
        std::copy(a.data + component(a.type), a.data + a.type.components * component(a.type), to + component(a.type));
    }

    void multiply_plain(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const u64* plain = arguments_.weights[o.next()];
        u64* to = make(out, a.type);
        rows(a.type.components, a.type.level, [&](std::size_t at, const NttTable& t) {
            t.kernels->mul(to + at, a.data + at, plain + at % component(a.type), n_, t.modulus);
        });
    }

    // A constant in every slot has the same number at every position.
    void add_constant(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const auto residues = o.rest();
        u64* to = make(out, a.type);
        rows(1, a.type.level, [&](std::size_t at, const NttTable& t) {
            const u64 c = residues[at / n_], q = t.modulus.value;
            for (std::size_t i = at; i < at + n_; ++i) {
                const u64 x = a.data[i] + c;
                to[i] = std::min(x, x - q);
            }
        });
        copy_rest(a, to);
    }

    void scale(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const auto residues = o.rest();
        u64* to = make(out, a.type);
        rows(a.type.components, a.type.level, [&](std::size_t at, const NttTable& t) {
            const Factor f = t.kernels->encode(residues[at / n_ % residues.size()], t.modulus);
            t.kernels->mul_scalar(to + at, a.data + at, f, n_, t.modulus);
        });
    }

    void multiply(Operands& o) {
        const u64 out = o.next();
        const Register &a = get(o.next()), &b = get(o.next());
        const std::size_t half = component(a.type);
        u64* to = make(out, {3, a.type.level});
        rows(1, a.type.level, [&](std::size_t at, const NttTable& t) {
            u64* const d[3] = {to + at, to + half + at, to + 2 * half + at};
            const u64* const p[2] = {a.data + at, a.data + half + at};
            const u64* const q[2] = {b.data + at, b.data + half + at};
            t.kernels->tensor(d, p, q, n_, t.modulus);
        });
    }

    void relinearise(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const u64 key = o.next();
        const std::size_t half = component(a.type);
        u64* to = make(out, {2, a.type.level});
        SwitchTarget target{{{arguments_.keys[key], nullptr}}, {}, {to, to + half}};
        target.addends = {std::vector<Addend>{{a.data}}, std::vector<Addend>{{a.data + half}}};
        switch_keys(constants(a.type.level), a.data + 2 * half, {target});
    }

    void rescale(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const Moduli all = plan_.moduli(a.type.level), kept = plan_.moduli(a.type.level - 1);
        const Moduli dropped(all.begin() + kept.size(), all.end());
        u64* to = make(out, {a.type.components, a.type.level - 1});
        divide(division_constants(kept, dropped, plan_.log_n(), isa_), to, a.data, a.type.components);
    }

    void drop(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const std::size_t level = o.next(), kept = plan_.limbs(level) * n_;
        u64* to = make(out, {a.type.components, level});
        for (std::size_t k = 0; k < a.type.components; ++k) {
            const u64* from = a.data + k * component(a.type);
            std::copy(from, from + kept, to + k * kept);
        }
    }

    // ---- key switches ----

    SwitchProduct product(u64 key) const {
        return {arguments_.keys[key], &permutation(plan_.keys()[key].element, plan_.log_n(), isa_)};
    }

    void rotate(Operands& o) {
        const Register& a = get(o.next());
        const std::size_t half = component(a.type);
        std::vector<SwitchTarget> targets;
        while (o.left() != 0) {
            u64* to = make(o.next(), a.type);
            targets.push_back({{product(o.next())}, {}, {to, to + half}});
            targets.back().addends[0] = {{a.data, targets.back().products[0].by}};
        }
        switch_keys(constants(a.type.level), a.data + half, targets);
    }

    void rotate_sum(Operands& o) {
        const u64 out = o.next();
        const Register& a = get(o.next());
        const std::size_t half = component(a.type);
        u64* to = make(out, a.type);
        SwitchTarget target{{}, {}, {to, to + half}};
        target.addends = {std::vector<Addend>{{a.data}}, std::vector<Addend>{{a.data + half}}};
        while (o.left() != 0) {
            target.products.push_back(product(o.next()));
            target.addends[0].push_back({a.data, target.products.back().by});
        }
        switch_keys(constants(a.type.level), a.data + half, {target});
    }

    // ---- sums of products ----

    std::vector<const u64*> data_of(std::span<const u64> all) const {
        std::vector<const u64*> out;
        for (u64 r : all) out.push_back(get(r).data);
        return out;
    }

    std::vector<u64*> make_all(std::span<const u64> outs, RegisterType type) {
        std::vector<u64*> to;
        for (u64 r : outs) to.push_back(make(r, type));
        return to;
    }

    std::vector<MatrixStep> steps(std::span<const u64> keys) const {
        std::vector<MatrixStep> all;
        for (u64 key : keys) all.push_back({key == kIdentity, key == kIdentity ? SwitchProduct{} : product(key)});
        return all;
    }

    void matrix(Operands& o) {
        const u64 w = o.next();
        const auto inputs = o.list(), outs = o.list(), babies = o.list(), giants = o.list();
        const RegisterType type = get(inputs[0]).type;
        const std::size_t words = plan_.weight_limbs(plan_.weights()[w]) * n_;
        MatrixPlan plan{steps(babies), steps(giants), {}, {}};
        TurnIndex turns(plan, inputs.size());
        for (std::size_t a = 0; a < outs.size(); ++a) {
            for (std::size_t j = 0; j < giants.size(); ++j) {
                const u64 count = o.next();
                if (count == 0) continue;
                plan.inner.push_back({a, j, {}});
                for (u64 term = 0; term < count; ++term) {
                    const u64 input = o.next(), baby = o.next(), diagonal = o.next();
                    plan.inner.back().terms.push_back({turns(input, baby), arguments_.weights[w] + diagonal * words});
                }
            }
        }
        const std::vector<const u64*> in = data_of(inputs);
        multiply_matrix(constants(type.level), make_all(outs, type), in, plan);
    }

    void sums(Operands& o) {
        const u64 w = o.next();
        const auto inputs = o.list(), outs = o.list();
        const RegisterType type = get(inputs[0]).type;
        std::vector<const u64*> plain;
        for (std::size_t d = 0; d < plan_.weights()[w].count; ++d) {
            plain.push_back(arguments_.weights[w] + d * component(type));
        }
        SumTerms terms(outs.size());
        for (auto& of_out : terms) {
            for (u64 count = o.next(); count != 0; --count) {
                const u64 input = o.next();
                of_out.emplace_back(input, o.next());
            }
        }
        const Ciphertexts in{data_of(inputs), type.components};
        sum_plain(tables(type.level), make_all(outs, type), in, plain, terms);
    }

    void periodic(Operands& o) {
        const u64 w = o.next();
        const auto inputs = o.list(), outs = o.list();
        const RegisterType type = get(inputs[0]).type;
        const Ciphertexts in{data_of(inputs), type.components};
        sum_periodic(tables(type.level), make_all(outs, type), in, arguments_.weights[w], plan_.weights()[w].values);
    }

    const Plan& plan_;
    const PlanArguments& arguments_;
    std::size_t n_;
    Isa isa_;
    std::vector<Register> registers_;
    Tables tables_;
};

}  // namespace

void run_plan(const Plan& plan, const PlanArguments& arguments) { Runner(plan, arguments).run(); }

}  // namespace lattice
