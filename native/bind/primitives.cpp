// Primitives of the Backend protocol (lattice.fhe.hal.backend), one limb of work at a time.
#include "base/pool.hpp"
#include "bind/arrays.hpp"
#include "hal/conversion.hpp"
#include "hal/division.hpp"
#include "hal/encoding.hpp"
#include "hal/scratch.hpp"
#include "ring/permutation.hpp"

namespace lattice {
namespace {

// Below this much work, waking a thread costs more than it saves.
constexpr std::size_t kWordsWorthSharing = 1 << 15;

void for_limbs(std::size_t count, std::size_t n, const std::function<void(std::size_t)>& body) {
    if (count * n >= kWordsWorthSharing) return parallel(count, body);
    for (std::size_t item = 0; item < count; ++item) body(item);
}

Tables tables_here(const Moduli& moduli, int log_n) { return tables_of(moduli, log_n, current_isa()); }

// One operand: out = f(x), limb by limb.
template <class Kernel>
Output unary(const Input& x, const Moduli& moduli, Kernel kernel) {
    const Tensor t(x, moduli.size());
    Output out = new_array(shape_of(x));
    u64* dst = out.data();
    const u64* src = x.data();
    nb::gil_scoped_release release;
    const Tables tables = tables_here(moduli, t.log_n);
    for_limbs(t.batch * t.limbs, t.n, [&](std::size_t item) {
        kernel(dst + item * t.n, src + item * t.n, item % t.limbs, *tables[item % t.limbs]);
    });
    return out;
}

// y has x's shape, or is one that repeats over x's leading axes.
std::size_t repeating_rows(const Input& x, const Input& y) {
    bool suffix = y.ndim() >= 2 && y.ndim() <= x.ndim();
    for (std::size_t d = 0; suffix && d < y.ndim(); ++d) {
        suffix = y.shape(d) == x.shape(d + x.ndim() - y.ndim());
    }
    if (!suffix) throw std::invalid_argument("the second operand's shape is not a suffix of the first's");
    return y.size() / y.shape(y.ndim() - 1);
}

template <class Kernel>
Output binary(const Input& x, const Input& y, const Moduli& moduli, Kernel kernel) {
    const std::size_t rows = repeating_rows(x, y);
    const u64* other = y.data();
    const Tensor t(x, moduli.size());
    Output out = new_array(shape_of(x));
    u64* dst = out.data();
    const u64* src = x.data();
    nb::gil_scoped_release release;
    const Tables tables = tables_here(moduli, t.log_n);
    for_limbs(t.batch * t.limbs, t.n, [&](std::size_t item) {
        kernel(dst + item * t.n, src + item * t.n, other + item % rows * t.n, *tables[item % t.limbs]);
    });
    return out;
}

Output ntt(const Input& x, const Moduli& moduli) {
    return unary(x, moduli, [](u64* dst, const u64* src, std::size_t, const NttTable& table) {
        table.kernels->forward(dst, src, table);
    });
}

Output intt(const Input& x, const Moduli& moduli) {
    return unary(x, moduli, [](u64* dst, const u64* src, std::size_t, const NttTable& table) {
        table.kernels->inverse(dst, src, table);
    });
}

Output neg(const Input& x, const Moduli& moduli) {
    return unary(x, moduli, [](u64* dst, const u64* src, std::size_t, const NttTable& table) {
        table.kernels->neg(dst, src, table.n(), table.modulus);
    });
}

Output mul_scalar(const Input& x, const Moduli& scalars, const Moduli& moduli) {
    if (scalars.size() != moduli.size()) throw std::invalid_argument("one scalar for each modulus");
    return unary(x, moduli, [&](u64* dst, const u64* src, std::size_t limb, const NttTable& table) {
        const Modulus& m = table.modulus;
        table.kernels->mul_scalar(dst, src, table.kernels->encode(scalars[limb] % m.value, m), table.n(), m);
    });
}

Output add(const Input& x, const Input& y, const Moduli& moduli) {
    return binary(x, y, moduli, [](u64* dst, const u64* a, const u64* b, const NttTable& table) {
        table.kernels->add(dst, a, b, table.n(), table.modulus);
    });
}

Output sub(const Input& x, const Input& y, const Moduli& moduli) {
    return binary(x, y, moduli, [](u64* dst, const u64* a, const u64* b, const NttTable& table) {
        table.kernels->sub(dst, a, b, table.n(), table.modulus);
    });
}

Output mul(const Input& x, const Input& y, const Moduli& moduli) {
    return binary(x, y, moduli, [](u64* dst, const u64* a, const u64* b, const NttTable& table) {
        table.kernels->mul(dst, a, b, table.n(), table.modulus);
    });
}

// acc + x·y
Output mul_add(const Input& acc, const Input& x, const Input& y, const Moduli& moduli) {
    const Tensor t(acc, moduli.size());
    const std::size_t x_rows = repeating_rows(acc, x), y_rows = repeating_rows(acc, y);
    Output out = new_array(shape_of(acc));
    u64* dst = out.data();
    const u64 *from = acc.data(), *a = x.data(), *b = y.data();
    nb::gil_scoped_release release;
    const Tables tables = tables_here(moduli, t.log_n);
    for_limbs(t.batch * t.limbs, t.n, [&](std::size_t item) {
        const NttTable& table = *tables[item % t.limbs];
        const std::size_t at = item * t.n;
        table.kernels->mul_add(dst + at, from + at, a + item % x_rows * t.n, b + item % y_rows * t.n, t.n,
                               table.modulus);
    });
    return out;
}

// The tensor product of [2, limbs, N] with [2, limbs, N].
Output multiply(const Input& x, const Input& y, const Moduli& moduli) {
    const Tensor t(x, moduli.size());
    require_shape(x, {2, t.limbs, t.n}, "the first factor");
    require_shape(y, {2, t.limbs, t.n}, "the second factor");
    Output out = new_array({3, t.limbs, t.n});
    u64* dst = out.data();
    const u64 *a = x.data(), *b = y.data();
    nb::gil_scoped_release release;
    const Tables tables = tables_here(moduli, t.log_n);
    for_limbs(t.limbs, t.n, [&](std::size_t limb) {
        const std::size_t at = limb * t.n, half = t.polynomial();
        u64* const d[3] = {dst + at, dst + half + at, dst + 2 * half + at};
        const u64* const p[2] = {a + at, a + half + at};
        const u64* const q[2] = {b + at, b + half + at};
        tables[limb]->kernels->tensor(d, p, q, t.n, tables[limb]->modulus);
    });
    return out;
}

Output automorphism_ntt(const Input& x, u64 g) {
    if (x.ndim() < 1) throw std::invalid_argument("expected an array [..., N]");
    const std::size_t n = x.shape(x.ndim() - 1);
    const int log_n = log2_of(n);
    Output out = new_array(shape_of(x));
    u64* dst = out.data();
    const u64* src = x.data();
    const std::size_t rows = x.size() / n;
    nb::gil_scoped_release release;
    const Isa isa = current_isa();
    const Permutation& by = permutation(g, log_n, isa);
    const Kernels& kernels = by.log_lanes == 0 ? scalar_kernels() : kernels_for(3, isa);
    for_limbs(rows, n, [&](std::size_t row) { kernels.permute(dst + row * n, src + row * n, by, n); });
    return out;
}

// To every target prime, or with `keep`, to those that are not among the source primes; the others are copied.
Output convert_to(const Input& x, const Moduli& source, const Moduli& target, bool keep) {
    const Tensor t(x, source.size());
    auto shape = shape_of(x);
    shape[shape.size() - 2] = target.size();
    Output out = new_array(shape);
    u64* dst = out.data();
    const u64* src = x.data();
    nb::gil_scoped_release release;
    if (source.empty() || source.size() > kMostLimbs) throw std::invalid_argument("1 … 256 source primes");
    const Tables from = tables_here(source, t.log_n), to = tables_here(target, t.log_n);
    const BaseConversion conversion(from, to, false);
    const Buffer z(t.batch * t.polynomial());
    for_limbs(t.batch * t.limbs, t.n, [&](std::size_t item) {
        const std::size_t j = item % t.limbs;
        from[j]->kernels->scale_centred(z.data() + item * t.n, src + item * t.n, conversion.to_y(j), t.n,
                                        from[j]->modulus);
    });
    for_limbs(t.batch * target.size(), t.n, [&](std::size_t item) {
        const std::size_t b = item / target.size(), i = item % target.size();
        u64* here = dst + item * t.n;
        for (std::size_t j = 0; keep && j < t.limbs; ++j) {
            if (source[j] == target[i]) {
                const u64* kept = src + (b * t.limbs + j) * t.n;
                std::copy(kept, kept + t.n, here);
                return;
            }
        }
        const Rows rows(z.data() + b * t.polynomial(), t.limbs, t.n);
        to[i]->kernels->convert(here, conversion.to(i, rows.begin()), t.n, to[i]->modulus);
    });
    return out;
}

Output convert(const Input& x, const Moduli& source, const Moduli& target) {
    return convert_to(x, source, target, false);
}
Output mod_up(const Input& x, const Moduli& source, const Moduli& target) {
    return convert_to(x, source, target, true);
}

Output mod_down(const Input& x, const Moduli& kept, const Moduli& dropped) {
    const Tensor t(x, kept.size() + dropped.size());
    auto shape = shape_of(x);
    shape[shape.size() - 2] = kept.size();
    Output out = new_array(shape);
    u64* dst = out.data();
    const u64* src = x.data();
    nb::gil_scoped_release release;
    divide(division_constants(kept, dropped, t.log_n, current_isa()), dst, src, t.batch);
    return out;
}

using Reals = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;

// Slots [count, N/2] to ([count, limbs, N] in NTT form, the largest coefficient).
std::pair<Output, double> encode(const Reals& real, const Reals& imaginary, double scale, const Reals& twiddles,
                                 const Moduli& moduli) {
    const bool fits = real.ndim() == 2 && imaginary.ndim() == 2 && real.shape(0) == imaginary.shape(0) &&
                      real.shape(1) == imaginary.shape(1) && real.shape(1) >= 4 && !moduli.empty() &&
                      twiddles.size() == 2 * (real.shape(1) - 1);
    if (!fits) throw std::invalid_argument("expected two arrays [count, slots] and 2·(slots − 1) twiddle factors");
    const std::size_t n = 2 * real.shape(1);
    const int log_n = log2_of(n);
    Output out = new_array({real.shape(0), moduli.size(), n});
    u64* to = out.data();
    const double *re = real.data(), *im = imaginary.data(), *w = twiddles.data();
    const std::size_t count = real.shape(0);
    double largest = 0.0;
    {
        nb::gil_scoped_release release;
        largest = encode_slots(tables_here(moduli, log_n), to, re, im, count, scale, w);
    }
    return {out, largest};
}

}  // namespace

void bind_primitives(nb::module_& m) {
    using namespace nb::literals;  // arrays of other types or layouts are refused, not copied
    m.def("empty", &new_array, "shape"_a);
    m.def("ntt", &ntt, nb::arg("x").noconvert(), "moduli"_a);
    m.def("intt", &intt, nb::arg("x").noconvert(), "moduli"_a);
    m.def("add", &add, nb::arg("x").noconvert(), nb::arg("y").noconvert(), "moduli"_a);
    m.def("sub", &sub, nb::arg("x").noconvert(), nb::arg("y").noconvert(), "moduli"_a);
    m.def("neg", &neg, nb::arg("x").noconvert(), "moduli"_a);
    m.def("mul", &mul, nb::arg("x").noconvert(), nb::arg("y").noconvert(), "moduli"_a);
    m.def("mul_add", &mul_add, nb::arg("acc").noconvert(), nb::arg("x").noconvert(), nb::arg("y").noconvert(), "moduli"_a);
    m.def("mul_scalar", &mul_scalar, nb::arg("x").noconvert(), "scalars"_a, "moduli"_a);
    m.def("multiply", &multiply, nb::arg("x").noconvert(), nb::arg("y").noconvert(), "moduli"_a);
    m.def("automorphism_ntt", &automorphism_ntt, nb::arg("x").noconvert(), "g"_a);
    m.def("convert", &convert, nb::arg("x").noconvert(), "source"_a, "target"_a);
    m.def("mod_up", &mod_up, nb::arg("x").noconvert(), "source"_a, "target"_a);
    m.def("mod_down", &mod_down, nb::arg("x").noconvert(), "kept"_a, "dropped"_a);
    m.def("encode", &encode, nb::arg("real").noconvert(), nb::arg("imaginary").noconvert(), "scale"_a,
          nb::arg("twiddles").noconvert(), "moduli"_a);
    m.def("root", [](u64 q, std::size_t n) { return ntt_table(q, log2_of(n)).root; }, "q"_a, "n"_a);
}

}  // namespace lattice
