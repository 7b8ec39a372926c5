// The canonical embedding for encoding: as lattice.fhe.ckks.embedding.interpolate, operation for operation (the bits must
// agree, so nothing may be contracted or reordered within a butterfly), and rounding to residues. Compiled once for
// every instruction set by leaving the vectors to the compiler.
#pragma once

#include <cmath>

#include "ring/ntt.hpp"

namespace lattice {
namespace {

// Slots (in place) to folded coefficients, in natural order, not yet permuted or divided. For each stage of length 2h the
// table has h cosines and h sines.
template <class V>
void embed_slots(double* __restrict real, double* __restrict imaginary, int log_slots, const double* twiddles) {
    const std::size_t slots = std::size_t{1} << log_slots;
    for (int stage = log_slots - 1; stage >= 0; --stage) {
        const std::size_t half = std::size_t{1} << stage;
        const double* __restrict cosine = twiddles + 2 * (half - 1);
        const double* __restrict sine = cosine + half;
        for (std::size_t start = 0; start < slots; start += 2 * half) {
            double* __restrict ur = real + start;
            double* __restrict ui = imaginary + start;
            double* __restrict vr = ur + half;
            double* __restrict vi = ui + half;
            for (std::size_t j = 0; j < half; ++j) {
                const double dr = ur[j] - vr[j], di = ui[j] - vi[j];
                ur[j] += vr[j];
                ui[j] += vi[j];
                vr[j] = dr * cosine[j] + di * sine[j];
                vi[j] = di * cosine[j] - dr * sine[j];
            }
        }
    }
}

// x·unit·scale, each product rounded, then to the nearest integer, ties to even; returns the largest in size.
template <class V>
double round_reals(double* x, std::size_t n, double unit, double scale) {
    constexpr double kMagic = 6755399441055744.0;  // 1.5·2^52: adding it leaves no fraction
    double largest = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
        x[i] = x[i] * unit * scale;
        const double size = x[i] < 0 ? -x[i] : x[i];
        largest = largest < size ? size : largest;
    }
    if (largest < 2251799813685248.0) {
        for (std::size_t i = 0; i < n; ++i) x[i] = (x[i] + kMagic) - kMagic;
    } else {
        for (std::size_t i = 0; i < n; ++i) x[i] = std::nearbyint(x[i]);
    }
    return std::nearbyint(largest);
}

// Integers below 2^50 in size, as doubles, to residues; larger ones one by one.
template <class V>
void residues_of_reals(u64* dst, const double* x, std::size_t n, double largest, const Modulus& m) {
    if (largest < m.real) {
        for (std::size_t i = 0; i < n; ++i) {
            const double y = x[i] < 0 ? x[i] + m.real : x[i];
            dst[i] = static_cast<u64>(static_cast<long long>(y));
        }
        return;
    }
    const long long q = static_cast<long long>(m.value);
    for (std::size_t i = 0; i < n; ++i) {
        const long long r = static_cast<long long>(x[i]) % q;
        dst[i] = static_cast<u64>(r < 0 ? r + q : r);
    }
}

}  // namespace
}  // namespace lattice
