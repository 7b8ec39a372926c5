#include "hal/matrix_product.hpp"

#include <memory>
#include <optional>

#include "base/pool.hpp"
#include "hal/limb_work.hpp"

namespace lattice {
namespace {

constexpr std::size_t kTurnedWords = std::size_t{1} << 16;  // half of a second-level cache of a megabyte
constexpr std::size_t kLeastChunk = 128;

// Sums over QP are kept divided by R throughout, as key products come out; the constants of `down` expect that.
struct MatrixProduct {
    const SwitchConstants& c;
    const MatrixPlan& plan;
    const std::vector<u64*>& out;
    const std::vector<const u64*>& in;
    std::size_t stride, n_inner, chunk;
    std::vector<std::unique_ptr<Decomposition>> inputs;  // those that are turned
    Buffer inner;                                        // [inner sums, 2, limbs, stride]
    Buffer middle;                                       // [inner sums, q limbs, n]: their c1, divided by P
    SpecialPart inner_special;                           // of c1 of each inner sum
    std::vector<std::unique_ptr<Decomposition>> turned;  // of `middle`
    SpecialPart total_special;                           // [results, 2]
    Countdown specials;

    MatrixProduct(const SwitchConstants& constants, const std::vector<u64*>& results,
                  const std::vector<const u64*>& ciphertexts, const MatrixPlan& the_plan)
        : c(constants), plan(the_plan), out(results), in(ciphertexts), stride(row_stride(c.n)),
          n_inner(plan.inner.size()), chunk(std::min(c.n, std::size_t{1} << c.tables[0]->kernels->leaf_log(c.log_n))),
          inputs(in.size()), inner(n_inner * 2 * c.limbs() * stride), middle(n_inner * c.q_limbs * c.n),
          inner_special(c, n_inner), turned(n_inner), total_special(c, 2 * out.size()),
          specials(out.size() * c.special_limbs) {
        while (chunk > kLeastChunk && 2 * plan.turns.size() * chunk > kTurnedWords) chunk /= 2;
        for (const MatrixTurn& turn : plan.turns) {
            if (!plan.babies[turn.baby].identity && !inputs[turn.input]) {
                inputs[turn.input] = std::make_unique<Decomposition>(c, in[turn.input] + c.q_limbs * c.n);
            }
        }
        for (std::size_t s = 0; s < n_inner; ++s) {
            if (!plan.giants[plan.inner[s].giant].identity) turned[s] = std::make_unique<Decomposition>(c, middle_at(s));
        }
    }

    u64* inner_at(std::size_t s, std::size_t half, std::size_t limb) const {
        return inner.data() + ((s * 2 + half) * c.limbs() + limb) * stride;
    }
    u64* middle_at(std::size_t s) const { return middle.data() + s * c.q_limbs * c.n; }

    void run() {
        parallel(in.size() * c.q_limbs, [&](std::size_t item) {
            if (inputs[item / c.q_limbs]) inputs[item / c.q_limbs]->to_coefficients(item % c.q_limbs);
        });
        parallel(c.limbs(), [&](std::size_t limb) { inner_sums(limb); });
        parallel(n_inner * c.special_limbs, [&](std::size_t item) {
            const std::size_t j = item / c.special_limbs, s = item % c.special_limbs;
            if (turned[j]) inner_special.take(j, s, inner_at(j, 1, c.q_limbs + s));
        });
        parallel(n_inner * c.q_limbs, [&](std::size_t item) { bring_down(item / c.q_limbs, item % c.q_limbs); });
        const std::size_t first = out.size() * c.special_limbs;
        parallel(out.size() * c.limbs(), [&](std::size_t item) {
            if (item < first) {
                special_part(item / c.special_limbs, item % c.special_limbs);
            } else {
                result((item - first) / c.q_limbs, (item - first) % c.q_limbs);
            }
        });
    }

    // ---- baby steps and diagonals ----

    // All inner sums modulo one prime, a chunk of positions at a time, with the turned ciphertexts of a chunk in cache.
    void inner_sums(std::size_t limb) {
        std::vector<std::optional<LimbWork>> work(in.size());
        std::size_t decomposed = 0;
        for (const auto& input : inputs) decomposed += input != nullptr;
        u64* space = scratch().digits.require(decomposed * c.digits.size() * stride);
        for (std::size_t i = 0; i < in.size(); ++i) {
            if (!inputs[i]) continue;
            work[i].emplace(c, limb);
            work[i]->take_digits(*inputs[i], space);
            work[i]->finish_digits();
            work[i]->expect_keys(plan.turns.size());
            space += c.digits.size() * stride;
        }
        u64* babies = scratch().rest.require(plan.turns.size() * 2 * chunk);
        for (std::size_t start = 0; start < c.n; start += chunk) {
            for (std::size_t t = 0; t < plan.turns.size(); ++t) {
                turn(work[plan.turns[t].input], limb, start, t, babies + 2 * t * chunk);
            }
            for (std::size_t s = 0; s < n_inner; ++s) weigh(limb, start, s, babies);
        }
    }

    // P·σ(ct) over QP at one chunk: [2, chunk].
    void turn(std::optional<LimbWork>& work, std::size_t limb, std::size_t start, std::size_t number, u64* to) const {
        const MatrixTurn& turn = plan.turns[number];
        const MatrixStep& step = plan.babies[turn.baby];
        const NttTable& table = *c.tables[limb];
        const bool lifts = limb < c.q_limbs;
        const u64* c0 = in[turn.input] + limb * c.n;
        if (!step.identity) {
            work->take_key(step.product, number);
            work->multiply_finished(start, chunk, to, to + chunk);
            if (lifts) {
                table.kernels->add_permuted(to - start, {c0, step.product.by}, &c.lift[limb], start, chunk,
                                            table.modulus);
            }
        } else if (lifts) {
            const u64* halves[2] = {c0, c0 + c.q_limbs * c.n};
            for (std::size_t half = 0; half < 2; ++half) {
                table.kernels->mul_scalar(to + half * chunk, halves[half] + start, c.lift[limb], chunk, table.modulus);
            }
        }
    }

    // One chunk of Σ diagonal ⊙ baby. Modulo special primes the unturned ciphertext is zero.
    void weigh(std::size_t limb, std::size_t start, std::size_t s, const u64* babies) const {
        const NttTable& table = *c.tables[limb];
        PointerList<const u64*> diagonals, b, a;
        u64* sums[2] = {inner_at(s, 0, limb) + start, inner_at(s, 1, limb) + start};
        bool add = false;
        const auto flush = [&] {
            const WeightedSum sum{sums[0], sums[1], diagonals.begin(), b.begin(), a.begin(), diagonals.size(), add};
            table.kernels->weighted_sum(sum, chunk, table.modulus);
            diagonals = b = a = {};
            add = true;
        };
        for (const MatrixTerm& term : plan.inner[s].terms) {
            if (plan.babies[plan.turns[term.turn].baby].identity && limb >= c.q_limbs) continue;
            diagonals.push(term.diagonal + limb * c.n + start);
            b.push(babies + 2 * term.turn * chunk);
            a.push(babies + (2 * term.turn + 1) * chunk);
            if (diagonals.size() == kMostLimbs) flush();
        }
        if (diagonals.size() != 0 || !add) flush();
    }

    // ---- giant steps ----

    // c1 of an inner sum, divided by P, and on to coefficients for its decomposition.
    void bring_down(std::size_t s, std::size_t limb) const {
        if (!turned[s]) return;
        LimbWork work(c, limb);
        u64* rest = scratch().rest.require(stride);
        inner_special.convert(s, limb, rest);
        for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
            work.kernels().leaf_to_quotient(middle_at(s) + limb * c.n, rest, leaf, work.table(), inner_at(s, 1, limb),
                                            c.down_factor[limb], {}, {});
        }
        turned[s]->to_coefficients(limb);
    }

    // Special primes come first, as in a key switch.
    void special_part(std::size_t a, std::size_t special) {
        LimbWork work(c, c.q_limbs + special);
        const u64* sums = giant_steps(work, a, c.q_limbs + special);
        for (std::size_t half = 0; half < 2; ++half) total_special.take(2 * a + half, special, sums + half * stride);
        specials.one_done();
    }

    void result(std::size_t a, std::size_t limb) {
        LimbWork work(c, limb);
        const u64* sums = giant_steps(work, a, limb);
        specials.wait();
        for (std::size_t half = 0; half < 2; ++half) {
            u64* rest = scratch().rest.require(stride);
            total_special.convert(2 * a + half, limb, rest);
            for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
                work.kernels().leaf_to_quotient(out[a] + (half * c.q_limbs + limb) * c.n, rest, leaf, work.table(),
                                                sums + half * stride, c.down_factor[limb], {}, {});
            }
        }
    }

    // A result modulo one prime, before the division.
    const u64* giant_steps(LimbWork& work, std::size_t a, std::size_t limb) const {
        u64* sums = scratch().sums.require(2 * stride);
        bool add = false;
        for (std::size_t s = 0; s < n_inner; ++s) {
            if (plan.inner[s].out != a) continue;
            turned[s] ? add_turned(work, limb, s, sums, add) : add_plain(work, limb, s, sums, add);
            add = true;
        }
        return sums;
    }

    void add_turned(LimbWork& work, std::size_t limb, std::size_t s, u64* sums, bool add) const {
        const SwitchProduct& product = plan.giants[plan.inner[s].giant].product;
        work.take_digits(*turned[s], scratch().digits.require(c.digits.size() * stride));
        work.expect_keys(1);
        work.take_key(product, 0);
        for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
            const std::size_t start = leaf * work.leaf_size();
            work.multiply(leaf, sums + start, sums + stride + start, add);
            work.kernels().add_permuted(sums, {inner_at(s, 0, limb), product.by}, nullptr, start, work.leaf_size(),
                                        work.table().modulus);
        }
    }

    void add_plain(LimbWork& work, std::size_t limb, std::size_t s, u64* sums, bool add) const {
        for (std::size_t half = 0; half < 2; ++half) {
            u64* sum = sums + half * stride;
            const u64* more = inner_at(s, half, limb);
            if (add) {
                work.kernels().add(sum, sum, more, c.n, work.table().modulus);
            } else {
                std::copy(more, more + c.n, sum);
            }
        }
    }
};

}  // namespace

void multiply_matrix(const SwitchConstants& c, const std::vector<u64*>& out, const std::vector<const u64*>& in,
                     const MatrixPlan& plan) {
    MatrixProduct(c, out, in, plan).run();
}

}  // namespace lattice
