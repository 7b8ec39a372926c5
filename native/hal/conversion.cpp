#include "hal/conversion.hpp"

namespace lattice {
namespace {

// Π_{k ≠ j} d_k modulo q.
u64 cofactor_mod(const Tables& primes, std::size_t j, u64 q) {
    u64 product = 1 % q;
    for (std::size_t k = 0; k < primes.size(); ++k) {
        if (k != j) product = mul_mod(product, primes[k]->modulus.value % q, q);
    }
    return product;
}

}  // namespace

Tables tables_of(const Moduli& moduli, int log_n, Isa isa) {
    Tables tables;
    tables.reserve(moduli.size());
    for (u64 q : moduli) tables.push_back(&ntt_table(q, log_n, isa));
    return tables;
}

u64 product_mod(const Tables& primes, u64 q) { return cofactor_mod(primes, primes.size(), q); }

BaseConversion::BaseConversion(const Tables& source, const Tables& target, bool divided) : sources_(source.size()) {
    for (std::size_t j = 0; j < source.size(); ++j) {
        const NttTable& table = *source[j];
        const Modulus& d = table.modulus;
        u64 y = inverse_mod(cofactor_mod(source, j, d.value), d.value);
        if (divided) y = mul_mod(y, d.radix, d.value);
        to_y_.push_back(table.kernels->encode(y, d));
        y = mul_mod(y, inverse_mod(table.n() % d.value, d.value), d.value);
        sum_.push_back(table.kernels->encode(y, d));
        difference_.push_back(table.kernels->encode(mul_mod(y, table.last_twiddle, d.value), d));
    }
    for (const NttTable* table : target) {
        const Modulus& p = table->modulus;
        u64 offset = 0;
        for (std::size_t j = 0; j < source.size(); ++j) {
            const u64 weight = cofactor_mod(source, j, p.value);
            const u64 half = source[j]->modulus.value / 2 % p.value;
            offset = add_mod(offset, mul_mod(half, weight, p.value), p.value);
            weights_.push_back(divided ? weight : mul_mod(weight, p.radix, p.value));
        }
        if (divided) offset = mul_mod(offset, inverse_mod(p.radix, p.value), p.value);
        offsets_.push_back(offset);
    }
}

}  // namespace lattice
