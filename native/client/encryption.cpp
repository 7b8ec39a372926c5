#include "client/encryption.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "base/pool.hpp"
#include "client/locked_memory.hpp"

namespace lattice {
namespace {

constexpr std::size_t kChunk = 1024;

// Room for a chunk of what is secret.
struct Chunk {
    alignas(64) u64 words[kChunk];
    ~Chunk() { wipe(words, sizeof words); }
};

// out += gadget·s²
void add_square(u64* out, const LimbSecret& secret, std::size_t n, const NttTable& table) {
    const Kernels& k = *table.kernels;
    const Factor gadget = k.encode(secret.gadget, table.modulus);
    Chunk t;
    for (std::size_t at = 0; at < n; at += kChunk) {
        const std::size_t length = std::min(kChunk, n - at);
        k.mul(t.words, secret.s + at, secret.s + at, length, table.modulus);
        k.mul_scalar(t.words, t.words, gadget, length, table.modulus);
        k.add(out + at, out + at, t.words, length, table.modulus);
    }
}

// out += a·u
void add_product(u64* out, UniformStream a, const u64* u, const NttTable& table) {
    alignas(64) u64 uniform[kChunk];  // public
    for (std::size_t at = 0; at < table.n(); at += kChunk) {
        const std::size_t length = std::min(kChunk, table.n() - at);
        a.read(uniform, length);
        table.kernels->mul_add(out + at, out + at, uniform, u + at, length, table.modulus);
    }
}

}  // namespace

void transform_small(u64* out, const std::int8_t* small, const NttTable& table) {
    table.kernels->from_small(out, small, table.n(), table.modulus);
    table.kernels->forward(out, out, table);
}

void encrypt_limb(u64* out, UniformStream a, const std::int8_t* error, const LimbSecret& secret, const u64* plain,
                  const NttTable& table) {
    const Kernels& k = *table.kernels;
    const std::size_t n = table.n();
    transform_small(out, error, table);
    alignas(64) u64 uniform[kChunk];  // public
    for (std::size_t at = 0; at < n; at += kChunk) {
        const std::size_t length = std::min(kChunk, n - at);
        a.read(uniform, length);
        if (plain) k.add(out + at, out + at, plain + at, length, table.modulus);
        k.mul_sub(out + at, out + at, uniform, secret.s + at, length, table.modulus);
    }
    if (secret.gadget == 0) return;
    if (secret.turn == nullptr) return add_square(out, secret, n, table);
    const Factor gadget = k.encode(secret.gadget, table.modulus);
    k.add_permuted(out, {secret.s, secret.turn}, &gadget, 0, n, table.modulus);
}

void encrypt_zero(u64* out, const u64* b, const UniformPolynomial& a, const std::int8_t* u, const std::int8_t* const e[2],
                  const Moduli& moduli, int log_n) {
    if (a.limbs() != moduli.size()) throw std::invalid_argument("as many primes as stream indices are needed");
    const Isa isa = current_isa();
    const Tables tables = tables_of(moduli, log_n, isa);
    const std::size_t n = std::size_t{1} << log_n, limbs = moduli.size();
    const std::size_t workers = std::min<std::size_t>(limbs, static_cast<std::size_t>(thread_count()));
    std::vector<SecretScratch> spaces;
    for (std::size_t w = 0; w < workers; ++w) spaces.emplace_back(n * sizeof(u64));
    parallel(workers, [&](std::size_t w) {
        auto* ephemeral = static_cast<u64*>(spaces[w].data());
        for (std::size_t limb = w; limb < limbs; limb += workers) {
            const NttTable& table = *tables[limb];
            transform_small(ephemeral, u, table);
            u64* halves[2] = {out + limb * n, out + (limbs + limb) * n};
            for (int half = 0; half < 2; ++half) transform_small(halves[half], e[half], table);
            table.kernels->mul_add(halves[0], halves[0], b + limb * n, ephemeral, n, table.modulus);
            add_product(halves[1], a.limb(limb, table.modulus.value, isa), ephemeral, table);
        }
    });
}

}  // namespace lattice
