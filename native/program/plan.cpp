#include "program/plan.hpp"

#include <string>

#include "hal/scratch.hpp"

namespace lattice {
namespace {

constexpr u64 kMostOf = u64{1} << 22;  // inputs, weights, keys, registers, outputs

void require(bool fine, const char* what) {
    if (!fine) throw std::invalid_argument(std::string("the plan is not valid: ") + what);
}

// Follows the types of the registers through the code: what the runner relies on.
class Types {
  public:
    explicit Types(const Plan& plan) : plan_(plan), types_(plan.registers()) {}

    void step(const Step& step) {
        Operands o(step.operands);
        switch (step.op) {
            case Op::input: return input(o);
            case Op::add:
            case Op::subtract: return sum(o);
            case Op::negate: return negate(o);
            case Op::add_plain:
            case Op::multiply_plain: return plain(o);
            case Op::add_constant:
            case Op::scale: return constant(o);
            case Op::multiply: return multiply(o);
            case Op::relinearise: return relinearise(o);
            case Op::rescale: return rescale(o);
            case Op::drop: return drop(o);
            case Op::rotate: return rotate(o);
            case Op::rotate_sum: return rotate_sum(o);
            case Op::matrix: return matrix(o);
            case Op::sum_plain: return sum_plain(o);
            case Op::sum_periodic: return sum_periodic(o);
            case Op::free: return free(o);
            case Op::count: break;
        }
        require(false, "an instruction that does not exist");
    }

    RegisterType type(u64 r) const {
        require(r < types_.size() && types_[r].components != 0, "a register is read that holds nothing");
        return types_[r];
    }

  private:
    void define(u64 r, RegisterType kind) {
        require(r < types_.size() && types_[r].components == 0, "a register is defined twice");
        types_[r] = kind;
    }
    void key(u64 k, std::size_t level, bool relinearises) const {
        require(k < plan_.keys().size() && plan_.special_limbs() != 0, "no such key");
        require(plan_.keys()[k].level == level, "a key of another level");
        require((plan_.keys()[k].element == kRelinearisation) == relinearises, "a key of another kind");
    }
    const PlanWeight& weight(u64 w, std::size_t level, WeightKind kind) const {
        require(w < plan_.weights().size(), "no such weight");
        require(plan_.weights()[w].kind == kind && plan_.weights()[w].level == level, "a weight of another type");
        return plan_.weights()[w];
    }
    static void done(const Operands& o) { require(o.left() == 0, "an instruction with too many operands"); }

    void input(Operands& o) {
        const u64 out = o.next(), index = o.next();
        done(o);
        require(index < plan_.inputs().size(), "no such input");
        define(out, {2, plan_.inputs()[index]});
    }
    void sum(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next()), b = type(o.next());
        done(o);
        require(a.level == b.level, "a sum of two levels");
        define(out, {std::max(a.components, b.components), a.level});
    }
    void negate(Operands& o) {
        const u64 out = o.next(), a = o.next();
        done(o);
        define(out, type(a));
    }
    void plain(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next());
        weight(o.next(), a.level, WeightKind::plaintext);
        done(o);
        define(out, a);
    }
    void constant(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next());
        const auto residues = o.rest();
        const Moduli moduli = plan_.moduli(a.level);
        require(residues.size() == moduli.size(), "a constant of another level");
        for (std::size_t k = 0; k < moduli.size(); ++k) require(residues[k] < moduli[k], "a constant that is no residue");
        define(out, a);
    }
    void multiply(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next()), b = type(o.next());
        done(o);
        require(a == b && a.components == 2, "a product of what cannot be multiplied");
        define(out, {3, a.level});
    }
    void relinearise(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next());
        key(o.next(), a.level, true);
        done(o);
        require(a.components == 3, "nothing to relinearise");
        define(out, {2, a.level});
    }
    void rescale(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next());
        done(o);
        require(a.level != 0, "no level to rescale by");
        define(out, {a.components, a.level - 1});
    }
    void drop(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next());
        const u64 level = o.next();
        done(o);
        require(level <= a.level, "dropped upwards");
        define(out, {a.components, level});
    }
    void rotate(Operands& o) {
        const RegisterType a = type(o.next());
        require(a.components == 2 && o.left() != 0 && o.left() % 2 == 0, "rotations of what cannot be rotated");
        while (o.left() != 0) {
            define(o.next(), a);
            key(o.next(), a.level, false);
        }
    }
    void rotate_sum(Operands& o) {
        const u64 out = o.next();
        const RegisterType a = type(o.next());
        require(a.components == 2 && o.left() != 0, "rotations of what cannot be rotated");
        while (o.left() != 0) key(o.next(), a.level, false);
        define(out, a);
    }
    // The common type of the inputs of a sum of products.
    RegisterType alike(std::span<const u64> inputs) const {
        require(!inputs.empty(), "a sum of nothing");
        const RegisterType first = type(inputs[0]);
        for (u64 r : inputs) require(type(r) == first, "inputs of different types");
        return first;
    }
    void matrix(Operands& o) {
        const u64 w = o.next();
        const auto inputs = o.list(), outs = o.list(), babies = o.list(), giants = o.list();
        const RegisterType kind = alike(inputs);
        const PlanWeight& diagonals = weight(w, kind.level, WeightKind::diagonals);
        require(kind.components == 2 && !outs.empty() && !giants.empty(), "a matrix of nothing");
        require(plan_.special_limbs() != 0, "a matrix without special primes");
        for (u64 k : babies) require(k == kIdentity || (key(k, kind.level, false), true), "");
        for (u64 k : giants) require(k == kIdentity || (key(k, kind.level, false), true), "");
        for (u64 out : outs) {
            bool any = false;
            for (std::size_t j = 0; j < giants.size(); ++j) {
                const u64 count = o.next();
                any = any || count != 0;
                for (u64 term = 0; term < count; ++term) {
                    const bool fine = o.next() < inputs.size() && o.next() < babies.size() && o.next() < diagonals.count;
                    require(fine, "a term names what is not there");
                }
            }
            require(any, "a result has no term");
            define(out, kind);
        }
        done(o);
    }
    void sum_plain(Operands& o) {
        const u64 w = o.next();
        const auto inputs = o.list(), outs = o.list();
        const RegisterType kind = alike(inputs);
        const PlanWeight& plain = weight(w, kind.level, WeightKind::plaintexts);
        for (u64 out : outs) {
            const u64 count = o.next();
            require(count != 0, "a result has no term");
            for (u64 term = 0; term < count; ++term) {
                require(o.next() < inputs.size() && o.next() < plain.count, "a term names what is not there");
            }
            define(out, kind);
        }
        done(o);
    }
    void sum_periodic(Operands& o) {
        const u64 w = o.next();
        const auto inputs = o.list(), outs = o.list();
        const RegisterType kind = alike(inputs);
        require(weight(w, kind.level, WeightKind::periodic).count == inputs.size() * outs.size(), "other sizes");
        done(o);
        for (u64 out : outs) define(out, kind);
    }
    void free(Operands& o) {
        const u64 a = o.next();
        done(o);
        type(a);
        types_[a] = {};
    }

    const Plan& plan_;
    std::vector<RegisterType> types_;
};

std::size_t bounded(u64 count) {
    require(count <= kMostOf, "too many of something");
    return count;
}

}  // namespace

Plan::Plan(std::vector<u64> words) : words_(std::move(words)) {
    Operands o(words_);
    require(o.next() == kPlanMagic, "it does not begin as a plan does");
    const u64 log_n = o.next(), levels = bounded(o.next()), inputs = bounded(o.next()), weights = bounded(o.next()),
              keys = bounded(o.next()), registers = bounded(o.next()), outputs = bounded(o.next()), code = o.next();
    require(log_n >= 3 && log_n <= 17 && levels != 0 && levels <= kMostLimbs && outputs != 0, "its sizes");
    require(registers <= words_.size(), "more registers than it defines");
    log_n_ = static_cast<int>(log_n);
    registers_ = registers;
    std::size_t before = 0;
    for (u64 limbs : o.take(levels)) {
        require(limbs > before && limbs <= kMostLimbs, "its levels");
        limbs_.push_back(before = limbs);
    }
    const u64 special = o.next();
    require(special <= kMostLimbs && (special != 0 || keys == 0), "its primes");
    const auto q = o.take(before), p = o.take(special);
    q_.assign(q.begin(), q.end());
    special_.assign(p.begin(), p.end());
    for (u64 prime : q_) ntt_table(prime, log_n_);  // refuses what is no prime of this ring
    for (std::size_t level = 0; level < levels; ++level) {
        std::vector<LimbRange> digits;
        const u64 count = o.next();
        require(count <= kMostLimbs, "its digits");
        for (u64 d = 0; d < count; ++d) {
            const u64 start = o.next();
            digits.emplace_back(start, o.next());
        }
        contexts_.push_back(special_.empty() ? nullptr
                                             : std::make_unique<SwitchContext>(n(), moduli(level), special_, digits));
    }
    const auto level_of = [&](u64 level) {
        require(level < levels, "a level that does not exist");
        return static_cast<std::size_t>(level);
    };
    for (u64 level : o.take(inputs)) inputs_.push_back(level_of(level));
    for (u64 w = 0; w < weights; ++w) {
        const u64 kind = o.next(), level = o.next(), count = o.next(), values = o.next();
        require(kind < static_cast<u64>(WeightKind::count) && count <= kMostOf, "a weight");
        require(values != 0 && values <= n() && n() % values == 0, "a weight");
        require(static_cast<WeightKind>(kind) == WeightKind::periodic || values == n(), "a weight");
        weights_.push_back({static_cast<WeightKind>(kind), level_of(level), bounded(count), values});
    }
    for (u64 k = 0; k < keys; ++k) {
        const u64 element = o.next(), level = o.next();
        require(element == kRelinearisation || (element % 2 == 1 && element < 2 * n()), "a key's element");
        keys_.push_back({element, level_of(level)});
    }
    for (u64 r : o.take(outputs)) outputs_.push_back(r);
    Operands rest(o.take(code));
    require(o.left() == 0, "its length");
    Types types(*this);
    while (rest.left() != 0) {
        const u64 op = rest.next();
        require(op < static_cast<u64>(Op::count), "an instruction that does not exist");
        steps_.push_back({static_cast<Op>(op), rest.list()});
        types.step(steps_.back());
    }
    for (std::size_t r : outputs_) output_types_.push_back(types.type(r));
}

}  // namespace lattice
