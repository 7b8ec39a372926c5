#include "hal/division.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "base/pool.hpp"
#include "hal/scratch.hpp"

namespace lattice {

DivisionConstants::DivisionConstants(const Moduli& kept_moduli, const Moduli& dropped_moduli,
                                     int log_n_, Isa isa)
    : log_n(log_n_), n(std::size_t{1} << log_n_), kept(tables_of(kept_moduli, log_n_, isa)),
      dropped(tables_of(dropped_moduli, log_n_, isa)), conversion(dropped, kept, false) {
    if (dropped.empty() || dropped.size() > kMostLimbs) throw std::invalid_argument("drop 1 … 256 primes");
    for (const NttTable* table : kept) {
        const Modulus& m = table->modulus;
        factor.push_back(table->kernels->encode(inverse_mod(product_mod(dropped, m.value), m.value), m));
    }
}

const DivisionConstants& division_constants(const Moduli& kept, const Moduli& dropped, int log_n,
                                            Isa isa) {
    struct Cache {
        std::mutex mutex;
        std::map<std::tuple<Moduli, Moduli, int, Isa>, std::unique_ptr<DivisionConstants>> known;
    };
    static Cache* cache = new Cache;
    std::lock_guard<std::mutex> lock(cache->mutex);
    auto& slot = cache->known[{kept, dropped, log_n, isa}];
    if (!slot) slot = std::make_unique<DivisionConstants>(kept, dropped, log_n, isa);
    return *slot;
}

void divide(const DivisionConstants& c, u64* out, const u64* x, std::size_t batch) {
    const std::size_t in_limbs = c.kept.size() + c.dropped.size();
    const Buffer z(batch * c.dropped.size() * c.n);
    parallel(batch * c.dropped.size(), [&](std::size_t item) {
        const std::size_t b = item / c.dropped.size(), j = item % c.dropped.size();
        const NttTable& table = *c.dropped[j];
        table.kernels->inverse_centred(z.data() + item * c.n, x + (b * in_limbs + c.kept.size() + j) * c.n, table,
                                       c.conversion.sum(j), c.conversion.difference(j));
    });
    parallel(batch * c.kept.size(), [&](std::size_t item) {
        const std::size_t b = item / c.kept.size(), i = item % c.kept.size();
        const NttTable& table = *c.kept[i];
        Scratch& mine = scratch();
        const Rows from(z.data() + b * c.dropped.size() * c.n, c.dropped.size(), c.n);
        u64* rest = mine.rest.require(c.n);
        table.kernels->forward_converted(rest, c.conversion.to(i, from.begin()), table);
        for (std::size_t leaf = 0; leaf < c.n >> table.kernels->leaf_log(c.log_n); ++leaf) {
            table.kernels->leaf_to_quotient(out + item * c.n, rest, leaf, table, x + (b * in_limbs + i) * c.n,
                                            c.factor[i], {}, {});
        }
    });
}

}  // namespace lattice
