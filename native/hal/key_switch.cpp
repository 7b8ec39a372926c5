#include "hal/key_switch.hpp"

#include <algorithm>

#include "base/pool.hpp"
#include "hal/limb_work.hpp"

namespace lattice {
namespace {

// Everything that the limbs of one switch_keys share.
struct Switch {
    const SwitchConstants& c;
    const std::vector<SwitchTarget>& targets;
    std::size_t stride;
    Decomposition input;
    SpecialPart special;  // [targets, 2]
    Countdown specials;

    Switch(const SwitchConstants& constants, const u64* in, const std::vector<SwitchTarget>& all)
        : c(constants), targets(all), stride(row_stride(c.n)), input(c, in), special(c, 2 * all.size()),
          specials(c.special_limbs) {}

    // Special primes come first, because the division waits for them. No thread waits for work that nobody has begun.
    void one_limb(std::size_t item) {
        const bool is_special = item < c.special_limbs;
        LimbWork work(c, is_special ? c.q_limbs + item : item - c.special_limbs);
        work.take_digits(input, scratch().digits.require(c.digits.size() * stride));
        for (std::size_t target = 0; target < targets.size(); ++target) {
            if (is_special) {
                drop(work, item, target);
            } else {
                divide(work, item - c.special_limbs, target);
            }
        }
        if (is_special) specials.one_done();
    }

    // One leaf of Σ σ(digits)·key.
    static void multiply(LimbWork& work, const SwitchTarget& target, std::size_t leaf, u64* b, u64* a) {
        for (std::size_t p = 0; p < target.products.size(); ++p) {
            if (p != 0) work.digits_are_finished();
            if (target.products.size() > 1 || leaf == 0) work.take_key(target.products[p], p);
            work.multiply(leaf, b, a, p != 0);
        }
    }

    void drop(LimbWork& work, std::size_t s, std::size_t target) {
        u64* sums = scratch().sums.require(2 * stride);
        work.expect_keys(targets[target].products.size());
        if (targets[target].products.size() > 1) work.finish_digits();
        for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
            const std::size_t start = leaf * work.leaf_size();
            multiply(work, targets[target], leaf, sums + start, sums + stride + start);
        }
        work.digits_are_finished();
        for (std::size_t half = 0; half < 2; ++half) special.take(2 * target + half, s, sums + half * stride);
    }

    void divide(LimbWork& work, std::size_t limb, std::size_t target) {
        const SwitchTarget& t = targets[target];
        u64* sums = scratch().sums.require(2 * stride);
        u64* rest = scratch().rest.require(2 * stride);
        work.expect_keys(t.products.size());
        if (t.products.size() > 1) work.finish_digits();
        specials.wait();
        for (std::size_t half = 0; half < 2; ++half) special.convert(2 * target + half, limb, rest + half * stride);
        for (std::size_t leaf = 0; leaf < work.leaves(); ++leaf) {
            u64* sum[2] = {sums, sums + work.leaf_size()};
            multiply(work, t, leaf, sum[0], sum[1]);
            // The first target's digits hide its key's way from memory; the others' must be fetched during this.
            const bool fetch = target != 0 && leaf + 1 < work.leaves();
            for (std::size_t half = 0; half < 2; ++half) {
                finish(work, limb, t, half, leaf, sum[half], rest + half * stride,
                       fetch ? work.key_ahead(leaf + 1, half) : Ahead{});
            }
        }
        work.digits_are_finished();
    }

    // (sum − rest)/P + addends
    void finish(LimbWork& work, std::size_t limb, const SwitchTarget& t, std::size_t half, std::size_t leaf,
                const u64* sum, u64* rest, const Ahead& ahead) const {
        const std::vector<Addend>& addends = t.addends[half];
        const std::size_t start = leaf * work.leaf_size();
        u64* out = t.out[half] + limb * c.n;
        const auto at_limb = [&](Addend addend) {
            addend.data += limb * c.n;
            return addend;
        };
        const Addend first = addends.empty() ? Addend{} : at_limb(addends[0]);
        work.kernels().leaf_to_quotient(out, rest, leaf, work.table(), sum - start, c.down_factor[limb], first, ahead);
        for (std::size_t a = 1; a < addends.size(); ++a) {
            work.kernels().add_permuted(out, at_limb(addends[a]), nullptr, start, work.leaf_size(),
                                        work.table().modulus);
        }
    }
};

}  // namespace

void switch_keys(const SwitchConstants& c, const u64* input, const std::vector<SwitchTarget>& targets) {
    Switch work(c, input, targets);
    parallel(c.q_limbs, [&](std::size_t limb) { work.input.to_coefficients(limb); });
    parallel(c.limbs(), [&](std::size_t item) { work.one_limb(item); });
}

void decompose(const SwitchConstants& c, u64* digits, const u64* input) {
    const Decomposition decomposition(c, input);
    parallel(c.q_limbs, [&](std::size_t limb) { decomposition.to_coefficients(limb); });
    parallel(c.digits.size() * c.limbs(), [&](std::size_t item) {
        const std::size_t limb = item % c.limbs();
        if (!decomposition.extend_one(item / c.limbs(), limb, digits + item * c.n)) {
            std::copy(input + limb * c.n, input + (limb + 1) * c.n, digits + item * c.n);
        }
    });
}

void gadget_product(const SwitchConstants& c, u64* out, const u64* digits, KeyView key) {
    parallel(c.limbs(), [&](std::size_t limb) {
        const NttTable& table = *c.tables[limb];
        const Kernels& kernels = *table.kernels;
        PointerList<const u64*> rows, key_b, key_a;
        u64* space = kernels.residues_are_lazies ? nullptr : scratch().digits.require(c.digits.size() * c.n);
        for (std::size_t d = 0; d < c.digits.size(); ++d) {
            const u64* row = digits + (d * c.limbs() + limb) * c.n;
            if (space != nullptr) kernels.to_lazies(space + d * c.n, row, 0, c.n, table.modulus);
            rows.push(space != nullptr ? space + d * c.n : row);
            key_b.push(key.limb(c, d, 0, limb));
            key_a.push(key.limb(c, d, 1, limb));
        }
        u64* halves[2] = {out + limb * c.n, out + (c.limbs() + limb) * c.n};
        kernels.gadget({halves[0], halves[1], rows.begin(), key_b.begin(), key_a.begin(), rows.size(), nullptr, false},
                       0, c.n, table.modulus);
        for (u64* half : halves) kernels.mul_scalar(half, half, table.modulus.to_plain, c.n, table.modulus);
    });
}

}  // namespace lattice
