#include "ring/table.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include "ring/kernels.hpp"

namespace lattice {
namespace {

constexpr u64 kLastBase = 100000;  // a prime has a root below ten or so; a composite number must not loop for long

// ψ = g^((q−1)/2N) for the smallest g ≥ 2 that makes ψ^N = −1.
u64 find_root(u64 q, int log_n) {
    const u64 n = u64{1} << log_n;
    for (u64 g = 2; g < kLastBase && g < q; ++g) {
        const u64 root = pow_mod(g, (q - 1) / (2 * n), q);
        if (pow_mod(root, n, q) == q - 1) return root;
    }
    throw std::invalid_argument(std::to_string(q) + " has no primitive root of order 2N: is it prime?");
}

void fill(NttTable& table, std::size_t seconds) {
    const std::size_t n = table.n();
    const u64 q = table.modulus.value;
    table.storage = Buffer(n + seconds);
    u64* first = table.storage.data();
    u64* second = first + n;
    u64 power = 1;
    for (std::size_t exponent = 0; exponent < n; ++exponent) {
        const std::size_t k = reverse_bits(static_cast<u32>(exponent), table.log_n);
        const Factor f = table.kernels->encode(power, table.modulus);
        first[k] = f.first;
        if (k < seconds) second[k] = f.second;
        power = mul_mod(power, table.root, q);
    }
    table.twiddles = {first, second};
}

std::unique_ptr<NttTable> build(u64 q, int log_n, Isa isa) {
    if (log_n < 3 || log_n > 17) throw std::invalid_argument("log2(N) must be 3 … 17");
    const u64 n = u64{1} << log_n;
    if (q >> kMaxModulusBits || q < 3 || q % (2 * n) != 1) {
        throw std::invalid_argument(std::to_string(q) + " is not a prime below 2^50 that is 1 mod 2N, N = " +
                                    std::to_string(n));
    }
    auto table = std::make_unique<NttTable>();
    const Kernels* kernels = &kernels_for(q, isa);
    if (log_n < kernels->smallest_log_n) {
        isa = Isa::scalar;
        kernels = &scalar_kernels();
    }
    table->modulus = make_modulus(q, isa);
    table->log_n = log_n;
    table->root = find_root(q, log_n);
    table->kernels = kernels;
    fill(*table, kernels->computes_lane_factors ? n / kernels->lanes : n);
    const u64 unscale = inverse_mod(n % q, q);
    table->unscale = kernels->encode(unscale, table->modulus);
    table->last_twiddle = pow_mod(table->root, n / 2, q);
    table->unscale_last = kernels->encode(mul_mod(unscale, table->last_twiddle, q), table->modulus);
    return table;
}

struct Tables {
    std::mutex mutex;
    std::map<std::tuple<u64, int, Isa>, std::unique_ptr<NttTable>> known;
};

}  // namespace

Modulus make_modulus(u64 q, Isa isa) {
    Modulus m{};
    m.value = q;
    m.inverse = inverse_mod_2_64(q);
    m.real = static_cast<double>(q);
    m.reciprocal = 1.0 / m.real;
    const Kernels& kernels = kernels_for(q, isa);
    m.radix = static_cast<u64>((static_cast<u128>(1) << kernels.radix_bits) % q);
    m.to_plain = kernels.encode(m.radix, m);
    return m;
}

const NttTable& ntt_table(u64 q, int log_n, Isa isa) {
    static Tables* tables = new Tables;  // outlives every static destructor
    std::lock_guard<std::mutex> lock(tables->mutex);
    auto& slot = tables->known[{q, log_n, isa}];
    if (!slot) slot = build(q, log_n, isa);
    return *slot;
}

const Kernels& kernels_for(u64 q, Isa isa) {
#if defined(LATTICE_X86)
    if (isa == Isa::avx512ifma) return ifma_kernels(q);
    if (isa == Isa::avx2) return avx2_kernels();
#endif
    static_cast<void>(q);
    static_cast<void>(isa);
    return scalar_kernels();
}

}  // namespace lattice
