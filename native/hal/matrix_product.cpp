#include "hal/matrix_product.hpp"

#include <memory>
#include <optional>

#include "base/pool.hpp"
#include "hal/limb_work.hpp"

namespace lattice {
namespace {

// Sums over QP are kept divided by R throughout, as key products come out; the constants of `down` expect that.
struct MatrixProduct {
    const SwitchConstants& c;
    const MatrixPlan& plan;
    const u64* ct;
    u64* out;
    std::size_t stride, n_giants;
    Decomposition input;
    Buffer inner;                                            // [giants, 2, limbs, stride]
    Buffer middle;                                           // [giants, q limbs, n]: c1 of an inner sum, divided by P
    SpecialPart inner_special;                               // of c1 of each inner sum
    std::vector<std::unique_ptr<Decomposition>> turned;      // of `middle`
    SpecialPart total_special;                               // of both halves of the result
    Countdown specials;

    MatrixProduct(const SwitchConstants& constants, u64* result, const u64* ciphertext, const MatrixPlan& the_plan)
        : c(constants), plan(the_plan), ct(ciphertext), out(result), stride(row_stride(c.n)),
          n_giants(plan.giants.size()), input(c, ct + c.q_limbs * c.n), inner(n_giants * 2 * c.limbs() * stride),
          middle(n_giants * c.q_limbs * c.n), inner_special(c, n_giants), turned(n_giants), total_special(c, 2),
          specials(c.special_limbs) {
        for (std::size_t j = 0; j < n_giants; ++j) {
            if (!plan.giants[j].identity) turned[j] = std::make_unique<Decomposition>(c, middle_at(j));
        }
    }

    u64* inner_at(std::size_t giant, std::size_t half, std::size_t limb) const {
        return inner.data() + ((giant * 2 + half) * c.limbs() + limb) * stride;
    }
    u64* middle_at(std::size_t giant) const { return middle.data() + giant * c.q_limbs * c.n; }

    void run() {
        bool turns = false;
        for (const MatrixStep& baby : plan.babies) turns = turns || !baby.identity;
        if (turns) parallel(c.q_limbs, [&](std::size_t limb) { input.to_coefficients(limb); });
        parallel(c.limbs(), [&](std::size_t limb) { inner_sums(limb, turns); });
        parallel(n_giants * c.special_limbs, [&](std::size_t item) {
            const std::size_t j = item / c.special_limbs, s = item % c.special_limbs;
            if (turned[j]) inner_special.take(j, s, inner_at(j, 1, c.q_limbs + s));
        });
        parallel(n_giants * c.q_limbs, [&](std::size_t item) { bring_down(item / c.q_limbs, item % c.q_limbs); });
        parallel(c.limbs(), [&](std::size_t item) { giant_steps(item); });
    }

    // ---- baby steps and diagonals ----

    // All inner sums modulo one prime, leaf by leaf, with the turned ciphertexts of a leaf in cache.
    void inner_sums(std::size_t limb, bool turns) {
        LimbWork work(c, limb);
        if (turns) {
            work.take_digits(input, scratch().digits.require(c.digits.size() * stride));
            work.finish_digits();
        }
        const std::size_t size = work.leaf_size();
        u64* babies = scratch().rest.require(plan.babies.size() * 2 * size);
        for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
            for (std::size_t b = 0; b < plan.babies.size(); ++b) {
                turn(work, limb, leaf, plan.babies[b], babies + 2 * b * size);
            }
            for (std::size_t j = 0; j < n_giants; ++j) weigh(work, limb, leaf, j, babies);
        }
    }

    // P·σ(ct) over QP at one leaf: [2, leaf].
    void turn(LimbWork& work, std::size_t limb, std::size_t leaf, const MatrixStep& step, u64* to) const {
        const std::size_t size = work.leaf_size(), start = leaf * size;
        const bool lifts = limb < c.q_limbs;
        const u64* c0 = ct + limb * c.n;
        if (!step.identity) {
            work.take_key(step.product);
            work.multiply(leaf, to, to + size, false);
            if (lifts) {
                work.kernels().add_permuted(to - start, {c0, step.product.by}, &c.lift[limb], start, size,
                                            work.table().modulus);
            }
        } else if (lifts) {
            const u64* halves[2] = {c0, c0 + c.q_limbs * c.n};
            for (std::size_t half = 0; half < 2; ++half) {
                work.kernels().mul_scalar(to + half * size, halves[half] + start, c.lift[limb], size,
                                          work.table().modulus);
            }
        }
    }

    // One leaf of Σ diagonal ⊙ baby. Modulo special primes the unturned ciphertext is zero.
    void weigh(LimbWork& work, std::size_t limb, std::size_t leaf, std::size_t giant, const u64* babies) const {
        const std::size_t size = work.leaf_size(), start = leaf * size;
        PointerList<const u64*> diagonals, b, a;
        u64* sums[2] = {inner_at(giant, 0, limb) + start, inner_at(giant, 1, limb) + start};
        bool add = false;
        const auto flush = [&] {
            const WeightedSum sum{sums[0], sums[1], diagonals.begin(), b.begin(), a.begin(), diagonals.size(), add};
            work.kernels().weighted_sum(sum, size, work.table().modulus);
            diagonals = b = a = {};
            add = true;
        };
        for (const MatrixTerm& term : plan.terms[giant]) {
            if (plan.babies[term.baby].identity && limb >= c.q_limbs) continue;
            diagonals.push(term.diagonal + limb * c.n + start);
            b.push(babies + 2 * term.baby * size);
            a.push(babies + (2 * term.baby + 1) * size);
            if (diagonals.size() == kMostLimbs) flush();
        }
        if (diagonals.size() != 0 || !add) flush();
    }

    // ---- giant steps ----

    // c1 of an inner sum, divided by P, and on to coefficients for its decomposition.
    void bring_down(std::size_t giant, std::size_t limb) const {
        if (!turned[giant]) return;
        LimbWork work(c, limb);
        u64* rest = scratch().rest.require(stride);
        inner_special.convert(giant, limb, rest);
        for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
            work.kernels().leaf_to_quotient(middle_at(giant) + limb * c.n, rest, leaf, work.table(),
                                            inner_at(giant, 1, limb), c.down_factor[limb], {}, {});
        }
        turned[giant]->to_coefficients(limb);
    }

    // The whole result modulo one prime; special primes first, as in a key switch.
    void giant_steps(std::size_t item) {
        const bool is_special = item < c.special_limbs;
        const std::size_t limb = is_special ? c.q_limbs + item : item - c.special_limbs;
        LimbWork work(c, limb);
        u64* sums = scratch().sums.require(2 * stride);
        bool add = false;
        for (std::size_t j = 0; j < n_giants; ++j) {
            turned[j] ? add_turned(work, limb, j, sums, add) : add_plain(work, limb, j, sums, add);
            add = true;
        }
        if (is_special) {
            for (std::size_t half = 0; half < 2; ++half) total_special.take(half, item, sums + half * stride);
            specials.one_done();
            return;
        }
        specials.wait();
        for (std::size_t half = 0; half < 2; ++half) {
            u64* rest = scratch().rest.require(stride);
            total_special.convert(half, limb, rest);
            for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
                work.kernels().leaf_to_quotient(out + (half * c.q_limbs + limb) * c.n, rest, leaf, work.table(),
                                                sums + half * stride, c.down_factor[limb], {}, {});
            }
        }
    }

    void add_turned(LimbWork& work, std::size_t limb, std::size_t giant, u64* sums, bool add) const {
        const SwitchProduct& product = plan.giants[giant].product;
        work.take_digits(*turned[giant], scratch().digits.require(c.digits.size() * stride));
        work.take_key(product);
        for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
            const std::size_t start = leaf * work.leaf_size();
            work.multiply(leaf, sums + start, sums + stride + start, add);
            work.kernels().add_permuted(sums, {inner_at(giant, 0, limb), product.by}, nullptr, start,
                                        work.leaf_size(), work.table().modulus);
        }
    }

    void add_plain(LimbWork& work, std::size_t limb, std::size_t giant, u64* sums, bool add) const {
        for (std::size_t half = 0; half < 2; ++half) {
            u64* sum = sums + half * stride;
            const u64* more = inner_at(giant, half, limb);
            if (add) {
                work.kernels().add(sum, sum, more, c.n, work.table().modulus);
            } else {
                std::copy(more, more + c.n, sum);
            }
        }
    }
};

}  // namespace

void multiply_matrix(const SwitchConstants& c, u64* out, const u64* ct, const MatrixPlan& plan) {
    MatrixProduct(c, out, ct, plan).run();
}

}  // namespace lattice
