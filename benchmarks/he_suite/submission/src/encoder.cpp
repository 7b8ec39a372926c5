#include "encoder.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/cpu.hpp"
#include "base/integers.hpp"
#include "ring/kernels.hpp"

namespace suite {
namespace {

void reverse_order(Reals& x, int bits) {
    for (std::size_t i = 0; i < x.size(); ++i) {
        const std::size_t j = lattice::reverse_bits(static_cast<lattice::u32>(i), bits);
        if (i < j) std::swap(x[i], x[j]);
    }
}

u64 residue(std::int64_t x, u64 q) {
    const auto signed_q = static_cast<std::int64_t>(q);
    const std::int64_t r = x % signed_q;
    return static_cast<u64>(r < 0 ? r + signed_q : r);
}

std::int64_t centred(u64 x, u64 q) {
    return x > q / 2 ? static_cast<std::int64_t>(x) - static_cast<std::int64_t>(q) : static_cast<std::int64_t>(x);
}

// Centred mixed-radix digits of one coefficient, as lattice.fhe.ring.rns.mixed_radix; folded into a double.
class Combination {
  public:
    explicit Combination(const Moduli& moduli) : moduli_(moduli), digits_(moduli.size()) {
        for (std::size_t k = 0; k < moduli.size(); ++k) {
            u64 product = 1;
            products_.emplace_back();
            for (std::size_t j = 0; j < k; ++j) {
                products_[k].push_back(product);
                product = lattice::mul_mod(product, moduli[j] % moduli[k], moduli[k]);
            }
            inverses_.push_back(lattice::inverse_mod(product, moduli[k]));
        }
    }

    double operator()(const u64* poly, std::size_t n, std::size_t at) {
        const std::size_t limbs = moduli_.size();
        for (std::size_t k = 0; k < limbs; ++k) {
            const u64 q = moduli_[k];
            u64 rest = poly[k * n + at];
            for (std::size_t j = 0; j < k; ++j) {
                rest = lattice::sub_mod(rest, lattice::mul_mod(residue(digits_[j], q), products_[k][j], q), q);
            }
            digits_[k] = centred(lattice::mul_mod(rest, inverses_[k], q), q);
        }
        double out = static_cast<double>(digits_[limbs - 1]);
        for (std::size_t k = limbs - 1; k-- > 0;) {
            out = out * static_cast<double>(moduli_[k]) + static_cast<double>(digits_[k]);
        }
        return out;
    }

  private:
    const Moduli& moduli_;
    std::vector<std::int64_t> digits_;
    std::vector<std::vector<u64>> products_;  // of the first j primes modulo prime k
    std::vector<u64> inverses_;
};

}  // namespace

Encoder::Encoder(int log_n, Words twiddles) : log_n_(log_n), n_(std::size_t{1} << log_n) {
    if (twiddles.size() != n_ - 2) throw std::runtime_error("a bundle has no twiddles for its ring");
    const auto* at = reinterpret_cast<const double*>(twiddles.data());
    for (std::size_t length = 2; length <= n_ / 2; length *= 2) {
        stages_.push_back(at);
        at += length;  // length/2 cosines and as many sines
    }
}

// Decimation in frequency; the butterflies and their roundings are those of the definition, in whichever order.
void Encoder::interpolate(Reals& real, Reals& imaginary) const {
    const std::size_t slots = n_ / 2;
    double *r = real.data(), *i = imaginary.data();
    for (std::size_t stage = stages_.size(); stage-- > 0;) {
        const std::size_t half = std::size_t{1} << stage;
        const double *cosine = stages_[stage], *sine = cosine + half;
        for (std::size_t start = 0; start < slots; start += 2 * half) {
            double *ur = r + start, *ui = i + start, *vr = ur + half, *vi = ui + half;
            for (std::size_t k = 0; k < half; ++k) {
                const double dr = ur[k] - vr[k], di = ui[k] - vi[k], w = -sine[k];
                ur[k] += vr[k];
                ui[k] += vi[k];
                vr[k] = dr * cosine[k] - di * w;
                vi[k] = dr * w + di * cosine[k];
            }
        }
    }
    reverse_order(real, log_n_ - 1);
    reverse_order(imaginary, log_n_ - 1);
    const auto count = static_cast<double>(slots);
    for (std::size_t k = 0; k < slots; ++k) {
        real[k] /= count;
        imaginary[k] /= count;
    }
}

void Encoder::evaluate(Reals& real, Reals& imaginary) const {
    const std::size_t slots = n_ / 2;
    reverse_order(real, log_n_ - 1);
    reverse_order(imaginary, log_n_ - 1);
    double *r = real.data(), *i = imaginary.data();
    for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
        const std::size_t half = std::size_t{1} << stage;
        const double *cosine = stages_[stage], *sine = cosine + half;
        for (std::size_t start = 0; start < slots; start += 2 * half) {
            double *ur = r + start, *ui = i + start, *vr = ur + half, *vi = ui + half;
            for (std::size_t k = 0; k < half; ++k) {
                const double tr = vr[k] * cosine[k] - vi[k] * sine[k], ti = vr[k] * sine[k] + vi[k] * cosine[k];
                vr[k] = ur[k] - tr;
                vi[k] = ui[k] - ti;
                ur[k] += tr;
                ui[k] += ti;
            }
        }
    }
}

void Encoder::encode(u64* out, Reals& real, Reals& imaginary, double scale, const Moduli& moduli) const {
    interpolate(real, imaginary);
    double room = 1;
    for (u64 q : moduli) room *= static_cast<double>(q);
    room = std::min(room / 2, 0x1p62);
    std::vector<std::int64_t> whole(n_);
    for (std::size_t k = 0; k < n_; ++k) {
        const double x = std::nearbyint((k < n_ / 2 ? real[k] : imaginary[k - n_ / 2]) * scale);
        if (!(std::abs(x) < room)) throw std::runtime_error("a value does not fit the modulus");
        whole[k] = static_cast<std::int64_t>(x);
    }
    const lattice::Isa isa = lattice::current_isa();
    for (std::size_t limb = 0; limb < moduli.size(); ++limb) {
        u64* to = out + limb * n_;
        for (std::size_t k = 0; k < n_; ++k) to[k] = residue(whole[k], moduli[limb]);
        const lattice::NttTable& table = lattice::ntt_table(moduli[limb], log_n_, isa);
        table.kernels->forward(to, to, table);
    }
}

Reals Encoder::decode(u64* poly, double scale, const Moduli& moduli) const {
    const lattice::Isa isa = lattice::current_isa();
    for (std::size_t limb = 0; limb < moduli.size(); ++limb) {
        const lattice::NttTable& table = lattice::ntt_table(moduli[limb], log_n_, isa);
        table.kernels->inverse(poly + limb * n_, poly + limb * n_, table);
    }
    Combination combine(moduli);
    Reals real(n_ / 2), imaginary(n_ / 2);
    for (std::size_t k = 0; k < n_; ++k) {
        (k < n_ / 2 ? real[k] : imaginary[k - n_ / 2]) = combine(poly, n_, k) / scale;
    }
    evaluate(real, imaginary);
    return real;
}

}  // namespace suite
