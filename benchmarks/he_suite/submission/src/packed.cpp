#include "packed.hpp"

#include <cstring>
#include <stdexcept>

namespace suite {
namespace {

// One limb of a packed polynomial.
void read_limb(u64* row, Bytes packed, const Moduli& moduli, std::size_t limb, std::size_t n) {
    take(packed, packed_bytes({moduli.begin(), moduli.begin() + static_cast<long>(limb)}, n));
    unpack_limb(row, packed, moduli[limb], n);
}

void expand_limb(u64* row, const lattice::UniformPolynomial& from, const Moduli& moduli, std::size_t limb, std::size_t n) {
    from.limb(limb, moduli[limb], lattice::current_isa()).read(row, n);
}

}  // namespace

Seed take_seed(Bytes& left) {
    Seed seed;
    std::memcpy(seed.data(), take(left, seed.size()).data(), seed.size());
    return seed;
}

PackedKey::PackedKey(const Scheme& scheme, const KeySpec& spec, Bytes& left)
    : n_(scheme.n()), moduli_(scheme.extended(spec.level)) {
    const Seed seed = take_seed(left);
    for (std::size_t d = 0; d < scheme.digits[spec.level].size(); ++d) {
        packed_.push_back(take(left, packed_bytes(moduli_, n_)));
        uniform_.push_back(key_half(scheme, spec, seed, d));
    }
}

void PackedKey::read(u64* row, std::size_t digit, std::size_t half, std::size_t limb) const {
    if (half == 0) return read_limb(row, packed_[digit], moduli_, limb, n_);
    expand_limb(row, uniform_[digit], moduli_, limb, n_);
}

PackedInputs::PackedInputs(const Scheme& scheme, const std::vector<std::size_t>& levels, Bytes& left) : n_(scheme.n()) {
    for (std::size_t level : levels) {
        const Seed seed = take_seed(left);
        const Moduli moduli = scheme.moduli(level);
        const Bytes packed = take(left, packed_bytes(moduli, n_));
        inputs_.push_back({moduli, packed, ciphertext_half(scheme, level, seed)});
    }
}

void PackedInputs::read(u64* row, std::size_t input, std::size_t component, std::size_t limb) const {
    const Input& from = inputs_[input];
    if (component == 0) return read_limb(row, from.packed, from.moduli, limb, n_);
    expand_limb(row, from.uniform, from.moduli, limb, n_);
}

std::size_t count_queries(const Scheme& scheme, const std::vector<std::size_t>& levels, Bytes upload) {
    std::size_t each = 0;
    for (std::size_t level : levels) each += sizeof(Seed) + packed_bytes(scheme.moduli(level), scheme.n());
    if (each == 0 || upload.size() % each != 0) throw std::runtime_error("the upload has no whole number of queries");
    return upload.size() / each;
}

}  // namespace suite
