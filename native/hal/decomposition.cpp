#include "hal/decomposition.hpp"

namespace lattice {

Decomposition::Decomposition(const SwitchConstants& constants, const u64* input)
    : c_(constants), input_(input), stride_(row_stride(c_.n)), z_(c_.q_limbs * stride_) {}

void Decomposition::to_coefficients(std::size_t q_limb) const {
    const std::size_t digit = c_.digit_of[q_limb];
    const std::size_t j = q_limb - c_.digits[digit].first;
    const NttTable& table = *c_.tables[q_limb];
    table.kernels->inverse_centred(z_.data() + q_limb * stride_, input_ + q_limb * c_.n, table, c_.up[digit].sum(j),
                                   c_.up[digit].difference(j));
}

LimbDigits Decomposition::extend(std::size_t limb, u64* space) const {
    const NttTable& table = *c_.tables[limb];
    LimbDigits digits;
    for (std::size_t d = 0; d < c_.digits.size(); ++d) {
        const auto [start, end] = c_.digits[d];
        u64* own = space + d * stride_;
        const u64* row = own;
        u64* work = nullptr;
        if (limb >= start && limb < end) {
            row = input_ + limb * c_.n;
            if (!table.kernels->residues_are_lazies) {
                table.kernels->to_lazies(own, row, 0, c_.n, table.modulus);
                row = own;
            }
        } else {
            const Rows from(z_.data() + start * stride_, end - start, stride_);
            table.kernels->forward_converted(own, c_.up[d].to(limb, from.begin()), table);
            work = own;
        }
        digits.rows.push(row);
        digits.work.push(work);
    }
    return digits;
}

bool Decomposition::extend_one(std::size_t digit, std::size_t limb, u64* out) const {
    const auto [start, end] = c_.digits[digit];
    if (limb >= start && limb < end) return false;
    const NttTable& table = *c_.tables[limb];
    const Rows from(z_.data() + start * stride_, end - start, stride_);
    table.kernels->forward_converted(out, c_.up[digit].to(limb, from.begin()), table);
    const std::size_t leaves = c_.n >> table.kernels->leaf_log(c_.log_n);
    for (std::size_t leaf = 0; leaf < leaves; ++leaf) table.kernels->leaf_to_residues(out, leaf, table);
    return true;
}

}  // namespace lattice
