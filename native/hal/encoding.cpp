#include "hal/encoding.hpp"

#include <algorithm>
#include <mutex>

#include "base/pool.hpp"
#include "hal/scratch.hpp"

namespace lattice {
namespace {

// One plaintext; returns its largest coefficient.
double encode_one(const Tables& tables, u64* out, const double* real, const double* imaginary, double scale,
                  const double* twiddles) {
    const NttTable& first = *tables[0];
    const std::size_t n = first.n(), slots = n / 2;
    double* x = reinterpret_cast<double*>(scratch().rest.require(2 * n));
    double* folded = x + n;
    std::copy(real, real + slots, x);
    std::copy(imaginary, imaginary + slots, x + slots);
    first.kernels->embed_slots(x, x + slots, first.log_n - 1, twiddles);
    for (std::size_t i = 0; i < slots; ++i) {
        const std::size_t from = reverse_bits(static_cast<u32>(i), first.log_n - 1);
        folded[i] = x[from];
        folded[slots + i] = x[slots + from];
    }
    const double largest = first.kernels->round_reals(folded, n, 1.0 / static_cast<double>(slots), scale);
    for (std::size_t limb = 0; limb < tables.size() && largest < kLargestEncoded; ++limb) {
        const NttTable& table = *tables[limb];
        table.kernels->residues_of_reals(out + limb * n, folded, n, largest, table.modulus);
        table.kernels->forward(out + limb * n, out + limb * n, table);
    }
    return largest;
}

}  // namespace

double encode_slots(const Tables& tables, u64* out, const double* real, const double* imaginary, std::size_t count,
                    double scale, const double* twiddles) {
    const std::size_t n = tables[0]->n();
    std::mutex mutex;
    double largest = 0.0;
    parallel(count, [&](std::size_t d) {
        const double mine = encode_one(tables, out + d * tables.size() * n, real + d * n / 2, imaginary + d * n / 2,
                                       scale, twiddles);
        std::lock_guard<std::mutex> lock(mutex);
        largest = std::max(largest, mine);
    });
    return largest;
}

}  // namespace lattice
