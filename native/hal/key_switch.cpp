#include "hal/key_switch.hpp"

#include <atomic>
#include <stdexcept>

#include "base/pool.hpp"
#include "hal/scratch.hpp"

namespace lattice {
namespace {

// Rows a power of two apart would share cache sets.
std::size_t row_stride(std::size_t n) { return n + 17 * 8; }

using Digits = PointerList<const u64*>;
using Work = PointerList<u64*>;

// Everything that the limbs of one switch_keys share.
struct Switch {
    const SwitchConstants& c;
    const u64* input;
    const std::vector<SwitchTarget>& targets;
    std::size_t stride;
    Buffer z;        // [q limbs, n]: centred residues of the input's coefficients
    Buffer dropped;  // [targets, 2, special limbs, n]: the same of each target's special part
    std::atomic<std::size_t> specials_done{0};

    Switch(const SwitchConstants& constants, const u64* in, const std::vector<SwitchTarget>& all)
        : c(constants), input(in), targets(all), stride(row_stride(c.n)), z(c.q_limbs * stride),
          dropped(all.size() * 2 * c.special_limbs * stride) {}

    u64* dropped_at(std::size_t target, std::size_t half) const {
        return dropped.data() + (target * 2 + half) * c.special_limbs * stride;
    }

    void to_coefficients(std::size_t limb) const {
        const std::size_t digit = c.digit_of[limb];
        const std::size_t j = limb - c.digits[digit].first;
        const NttTable& table = *c.tables[limb];
        table.kernels->inverse_centred(z.data() + limb * stride, input + limb * c.n, table, c.up[digit].sum(j),
                                       c.up[digit].difference(j));
    }

    // The digits modulo one prime, transformed but for their leaves. A digit's own prime needs no conversion.
    Digits extend(std::size_t limb, u64* space, Work& work) const {
        const NttTable& table = *c.tables[limb];
        Digits digits;
        for (std::size_t d = 0; d < c.digits.size(); ++d) {
            const auto [start, end] = c.digits[d];
            u64* own = space + d * stride;
            digits.push(own);
            work.push(nullptr);
            if (limb < c.q_limbs && c.digit_of[limb] == d) {
                if (table.kernels->residues_are_lazies) {
                    digits[d] = input + limb * c.n;
                } else {
                    table.kernels->to_lazies(own, input + limb * c.n, 0, c.n, table.modulus);
                }
            } else {
                const Rows from(z.data() + start * stride, end - start, stride);
                table.kernels->forward_converted(own, c.up[d].to(limb, from.begin()), table);
                work[d] = own;
            }
        }
        return digits;
    }

    void one_limb(std::size_t item);
    struct Limb;
};

// The work modulo one prime. It goes leaf by leaf: finish the digits' transforms there, multiply by the key, and, for a
// q prime, subtract and divide, all while the leaf is in the second-level cache.
struct Switch::Limb {
    Switch& all;
    const SwitchConstants& c;
    std::size_t limb;
    const NttTable& table;
    const Kernels& kernels;
    std::size_t leaf_size, leaves;
    u64 *sums, *rest;
    Work work;
    Digits digits;
    Digits key[2];

    Limb(Switch& whole, std::size_t number)
        : all(whole), c(whole.c), limb(number), table(*c.tables[number]), kernels(*table.kernels),
          leaf_size(std::size_t{1} << kernels.leaf_log(c.log_n)), leaves(c.n / leaf_size) {
        Scratch& mine = scratch();
        sums = mine.sums.require(2 * all.stride);
        rest = mine.rest.require(2 * all.stride);
        digits = all.extend(limb, mine.digits.require(c.digits.size() * all.stride), work);
    }

    // Σ_d σ(digit_d)·key_d at one leaf, into `b` and `a`. The first target also finishes the digits.
    void multiply(std::size_t target, std::size_t leaf, u64* b, u64* a) {
        const SwitchTarget& t = all.targets[target];
        const std::size_t start = leaf * leaf_size;
        const GadgetProduct product{b - start,        a - start,      digits.begin(), key[0].begin(),
                                    key[1].begin(), digits.size(), t.by};
        kernels.leaf_of_products(product, target == 0 ? work.begin() : nullptr, leaf, table);
    }

    void use_key(std::size_t target) {
        key[0] = key[1] = {};
        for (std::size_t d = 0; d < digits.size(); ++d) {
            for (std::size_t half = 0; half < 2; ++half) key[half].push(all.targets[target].key.limb(c, d, half, limb));
        }
    }

    // The key's rows from one position on.
    const Digits& key_at(std::size_t start) {
        ahead = {};
        for (const Digits& half : key) {
            for (const u64* row : half) ahead.push(row + start);
        }
        return ahead;
    }
    Digits ahead;

    // Part number `part` of `parts` of a list, to be fetched.
    static Ahead share(const Digits& list, std::size_t part, std::size_t parts) {
        const std::size_t begin = list.size() * part / parts, end = list.size() * (part + 1) / parts;
        return {list.begin() + begin, end - begin};
    }

    // A special prime: the sum's centred coefficients.
    void drop(std::size_t target) {
        use_key(target);
        for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
            multiply(target, leaf, sums + leaf * leaf_size, sums + all.stride + leaf * leaf_size);
        }
        const std::size_t s = limb - c.q_limbs;
        for (std::size_t half = 0; half < 2; ++half) {
            kernels.inverse_centred(all.dropped_at(target, half) + s * all.stride, sums + half * all.stride, table, c.down.sum(s),
                                    c.down.difference(s));
        }
    }

    // A q prime: (sum − what the special primes convert to)/P + addend.
    void divide(std::size_t target) {
        use_key(target);
        const SwitchTarget& t = all.targets[target];
        while (all.specials_done.load(std::memory_order_acquire) < c.special_limbs) {
        }
        Addend addend[2] = {t.addend[0], t.addend[1]};
        for (std::size_t half = 0; half < 2; ++half) {
            const Rows from(all.dropped_at(target, half), c.special_limbs, all.stride);
            kernels.forward_converted(rest + half * all.stride, c.down.to(limb, from.begin()), table);
            if (addend[half].data != nullptr) addend[half].data += limb * c.n;
        }
        for (std::size_t leaf = 0; leaf < leaves; ++leaf) {
            u64* product[2] = {sums, sums + leaf_size};
            multiply(target, leaf, product[0], product[1]);
            const std::size_t start = leaf * leaf_size;
            const bool fetch = target != 0 && leaf + 1 < leaves;
            for (std::size_t half = 0; half < 2; ++half) {
                kernels.leaf_to_quotient(t.out[half] + limb * c.n, rest + half * all.stride, leaf, table,
                                         product[half] - start, c.down_factor[limb], addend[half],
                                         fetch ? share(key_at(start + leaf_size), half, 2) : Ahead{});
            }
        }
    }
};

// Special primes come first, because the division waits for them. No thread waits for work that nobody has begun.
void Switch::one_limb(std::size_t item) {
    Limb limb(*this, item < c.special_limbs ? c.q_limbs + item : item - c.special_limbs);
    for (std::size_t target = 0; target < targets.size(); ++target) {
        if (item < c.special_limbs) {
            limb.drop(target);
        } else {
            limb.divide(target);
        }
    }
    if (item < c.special_limbs) specials_done.fetch_add(1, std::memory_order_release);
}

}  // namespace

SwitchConstants::SwitchConstants(const std::vector<u64>& q, const std::vector<u64>& special,
                                 const std::vector<std::pair<std::size_t, std::size_t>>& ranges, int log_n_, Isa isa_)
    : log_n(log_n_), isa(isa_), n(std::size_t{1} << log_n_), q_limbs(q.size()), special_limbs(special.size()),
      digits(ranges) {
    if (q.size() + special.size() > kMostLimbs) throw std::invalid_argument("more than 256 primes");
    const Tables q_tables = tables_of(q, log_n, isa);
    const Tables p_tables = tables_of(special, log_n, isa);
    tables = q_tables;
    tables.insert(tables.end(), p_tables.begin(), p_tables.end());
    for (std::size_t d = 0; d < digits.size(); ++d) {
        const auto [start, end] = digits[d];
        up.emplace_back(Tables(q_tables.begin() + start, q_tables.begin() + end), tables, false);
        digit_of.insert(digit_of.end(), end - start, d);
    }
    down = BaseConversion(p_tables, q_tables, true);
    for (const NttTable* table : q_tables) {
        const Modulus& m = table->modulus;
        const u64 inverse = inverse_mod(product_mod(p_tables, m.value), m.value);
        down_factor.push_back(table->kernels->encode(mul_mod(inverse, m.radix, m.value), m));
    }
}

SwitchContext::SwitchContext(std::size_t n, std::vector<u64> q, std::vector<u64> special,
                             std::vector<std::pair<std::size_t, std::size_t>> digits)
    : n_(n), q_(std::move(q)), special_(std::move(special)), digits_(std::move(digits)) {
    std::size_t next = 0;
    for (const auto& [start, end] : digits_) {
        if (start != next || end <= start) throw std::invalid_argument("digits must be consecutive runs of limbs");
        next = end;
    }
    if (next != q_.size() || q_.empty() || special_.empty()) {
        throw std::invalid_argument("digits must cover all q primes, and there must be special primes");
    }
    constants();  // finds bad moduli now
}

const SwitchConstants& SwitchContext::constants() const {
    const Isa isa = current_isa();
    std::lock_guard<std::mutex> lock(mutex_);
    auto& slot = by_isa_[static_cast<std::size_t>(isa)];
    if (!slot) {
        int log_n = 0;
        while ((std::size_t{1} << log_n) < n_) ++log_n;
        if ((std::size_t{1} << log_n) != n_) throw std::invalid_argument("N is not a power of two");
        slot = std::make_unique<SwitchConstants>(q_, special_, digits_, log_n, isa);
    }
    return *slot;
}

std::vector<u64> SwitchContext::moduli() const {
    std::vector<u64> all = q_;
    all.insert(all.end(), special_.begin(), special_.end());
    return all;
}

void switch_keys(const SwitchConstants& c, const u64* input, const std::vector<SwitchTarget>& targets) {
    Switch work(c, input, targets);
    parallel(c.q_limbs, [&](std::size_t limb) { work.to_coefficients(limb); });
    parallel(c.limbs(), [&](std::size_t item) { work.one_limb(item); });
}

void decompose(const SwitchConstants& c, u64* digits, const u64* input) {
    const std::vector<SwitchTarget> none;
    Switch work(c, input, none);
    parallel(c.q_limbs, [&](std::size_t limb) { work.to_coefficients(limb); });
    parallel(c.digits.size() * c.limbs(), [&](std::size_t item) {
        const std::size_t d = item / c.limbs(), limb = item % c.limbs();
        const auto [start, end] = c.digits[d];
        u64* out = digits + item * c.n;
        if (limb >= start && limb < end) {
            std::copy(input + limb * c.n, input + (limb + 1) * c.n, out);
            return;
        }
        const NttTable& table = *c.tables[limb];
        const Rows from(work.z.data() + start * work.stride, end - start, work.stride);
        table.kernels->forward_converted(out, c.up[d].to(limb, from.begin()), table);
        const std::size_t leaves = c.n >> table.kernels->leaf_log(c.log_n);
        for (std::size_t leaf = 0; leaf < leaves; ++leaf) table.kernels->leaf_to_residues(out, leaf, table);
    });
}

void gadget_product(const SwitchConstants& c, u64* out, const u64* digits, std::size_t digit_stride, KeyView key) {
    parallel(c.limbs(), [&](std::size_t limb) {
        const NttTable& table = *c.tables[limb];
        const Kernels& kernels = *table.kernels;
        Digits rows, key_b, key_a;
        Scratch& mine = scratch();
        u64* space = kernels.residues_are_lazies ? nullptr : mine.digits.require(c.digits.size() * c.n);
        for (std::size_t d = 0; d < c.digits.size(); ++d) {
            const u64* row = digits + d * digit_stride + limb * c.n;
            if (space != nullptr) kernels.to_lazies(space + d * c.n, row, 0, c.n, table.modulus);
            rows.push(space != nullptr ? space + d * c.n : row);
            key_b.push(key.limb(c, d, 0, limb));
            key_a.push(key.limb(c, d, 1, limb));
        }
        u64* halves[2] = {out + limb * c.n, out + (c.limbs() + limb) * c.n};
        kernels.gadget({halves[0], halves[1], rows.begin(), key_b.begin(), key_a.begin(), rows.size(), nullptr}, 0,
                       c.n, table.modulus);
        for (u64* half : halves) kernels.mul_scalar(half, half, table.modulus.to_plain, c.n, table.modulus);
    });
}

}  // namespace lattice
