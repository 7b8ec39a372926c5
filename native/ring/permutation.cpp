#include "ring/permutation.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include "ring/kernels.hpp"

namespace lattice {
namespace {

int lanes_log(int log_n, Isa isa) {
    const Kernels& kernels = kernels_for(3, isa);
    if (log_n < kernels.smallest_log_n) return 0;
    int log = 0;
    while ((1 << log) < kernels.lanes) ++log;
    return log;
}

// Position j holds the value at ψ^(2i+1) with i = bitrev(j). Write i = low + (N/L)·high, where high, reversed, is the
// lane. Then g(2i + 1) = g(2·low + 1) + (2N/L)·g·high modulo 2N: the new low depends on low alone, the new high is
// (carry + g·high) mod L, where the carry is what g(2·low + 1) has above 2N/L.
std::unique_ptr<Permutation> build(u64 g, int log_n, int log_lanes) {
    const u64 n = u64{1} << log_n;
    if (g % 2 == 0 || g >= 2 * n) {
        throw std::invalid_argument(std::to_string(g) + " is not an odd number below 2N = " + std::to_string(2 * n));
    }
    const u64 lanes = u64{1} << log_lanes;
    const u64 vectors = n >> log_lanes;
    auto made = std::make_unique<Permutation>();
    made->log_lanes = log_lanes;
    made->storage = Buffer((vectors + 1) / 2 + lanes * lanes);
    u64* patterns = made->storage.data();
    u32* source = reinterpret_cast<u32*>(patterns + lanes * lanes);
    for (u64 carry = 0; carry < lanes; ++carry) {
        for (u64 lane = 0; lane < lanes; ++lane) {
            const u64 high = (carry + g * reverse_bits(static_cast<u32>(lane), log_lanes)) % lanes;
            patterns[carry * lanes + lane] = reverse_bits(static_cast<u32>(high), log_lanes);
        }
    }
    for (u64 vector = 0; vector < vectors; ++vector) {
        const u64 low = reverse_bits(static_cast<u32>(vector), log_n - log_lanes);
        const u64 exponent = g * (2 * low + 1) % (2 * n);
        const u64 carry = exponent / (2 * vectors);
        const u64 new_low = exponent % (2 * vectors) / 2;
        const u64 from = reverse_bits(static_cast<u32>(new_low), log_n - log_lanes);
        source[vector] = static_cast<u32>((from << log_lanes) | carry);
    }
    made->patterns = patterns;
    made->source = source;
    return made;
}

struct Permutations {
    std::mutex mutex;
    std::map<std::tuple<u64, int, int>, std::unique_ptr<Permutation>> known;
};

}  // namespace

const Permutation& permutation(u64 g, int log_n, Isa isa) {
    static Permutations* permutations = new Permutations;
    const int log_lanes = lanes_log(log_n, isa);
    std::lock_guard<std::mutex> lock(permutations->mutex);
    auto& slot = permutations->known[{g, log_n, log_lanes}];
    if (!slot) slot = build(g, log_n, log_lanes);
    return *slot;
}

}  // namespace lattice
