#include "bind/arrays.hpp"

namespace lattice {
namespace {

std::string text_of(const std::vector<std::size_t>& shape) {
    std::string text = "[";
    for (std::size_t d = 0; d < shape.size(); ++d) text += (d ? ", " : "") + std::to_string(shape[d]);
    return text + "]";
}

}  // namespace

Output new_array(const std::vector<std::size_t>& shape) {
    std::size_t words = 1;
    for (std::size_t extent : shape) words *= extent;
    auto* owner = new Buffer(words);
    nb::capsule capsule(owner, [](void* p) noexcept { delete static_cast<Buffer*>(p); });
    return Output(owner->data(), shape.size(), shape.data(), capsule);
}

std::vector<std::size_t> shape_of(const Input& x) {
    std::vector<std::size_t> shape(x.ndim());
    for (std::size_t d = 0; d < x.ndim(); ++d) shape[d] = x.shape(d);
    return shape;
}

Tensor::Tensor(const Input& x, std::size_t expected_limbs) : batch(1) {
    if (x.ndim() < 2) throw std::invalid_argument("expected an array [..., limbs, N]");
    limbs = x.shape(x.ndim() - 2);
    n = x.shape(x.ndim() - 1);
    if (limbs != expected_limbs) {
        throw std::invalid_argument("an array of " + std::to_string(limbs) + " limbs for " +
                                    std::to_string(expected_limbs) + " moduli");
    }
    log_n = log2_of(n);
    for (std::size_t d = 0; d + 2 < x.ndim(); ++d) batch *= x.shape(d);
}

void require_shape(const Input& x, const std::vector<std::size_t>& shape, const char* what) {
    const auto got = shape_of(x);
    if (got != shape) {
        throw std::invalid_argument(std::string(what) + " must be " + text_of(shape) + ", not " + text_of(got));
    }
}

}  // namespace lattice
