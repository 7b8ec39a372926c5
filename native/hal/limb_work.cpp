#include "hal/limb_work.hpp"

namespace lattice {

LimbWork::LimbWork(const SwitchConstants& constants, std::size_t limb)
    : c_(constants), limb_(limb), table_(*c_.tables[limb]),
      leaf_size_(std::size_t{1} << table_.kernels->leaf_log(c_.log_n)) {}

void LimbWork::take_digits(const Decomposition& decomposition, u64* space) {
    digits_ = decomposition.extend(limb_, space);
    finished_ = false;
}

void LimbWork::expect_keys(std::size_t count) {
    expected_ = count;
    is_read_.clear();
}

void LimbWork::take_key(const SwitchProduct& product, std::size_t number) {
    by_ = product.by;
    const KeyView& key = product.key;
    for (std::size_t half = 0; half < 2; ++half) {
        key_[half] = {};
        for (std::size_t d = 0; d < digits_.rows.size(); ++d) {
            key_[half].push(key.source != nullptr ? key_row(key, number, d, half) : key.limb(c_, d, half, limb_));
        }
    }
    if (key.source != nullptr) is_read_[number] = true;
}

// A row of this thread's, filled when its key is taken for the first time.
u64* LimbWork::key_row(const KeyView& key, std::size_t number, std::size_t digit, std::size_t half) {
    const std::size_t stride = row_stride(c_.n), digits = c_.digits.size();
    if (is_read_.empty()) is_read_.assign(expected_, false);
    u64* row = scratch().keys.require(expected_ * digits * 2 * stride) + ((number * digits + digit) * 2 + half) * stride;
    if (!is_read_[number]) key.source->read(row, digit, half, key.place(c_, limb_));
    return row;
}

void LimbWork::multiply(std::size_t leaf, u64* b, u64* a, bool add) {
    const std::size_t start = leaf * leaf_size_;
    const GadgetProduct product{
        b - start, a - start, digits_.rows.begin(), key_[0].begin(), key_[1].begin(), digits_.rows.size(), by_, add};
    kernels().leaf_of_products(product, finished_ ? nullptr : digits_.work.begin(), leaf, table_);
}

void LimbWork::multiply_finished(std::size_t start, std::size_t length, u64* b, u64* a) const {
    const GadgetProduct product{
        b - start, a - start, digits_.rows.begin(), key_[0].begin(), key_[1].begin(), digits_.rows.size(), by_, false};
    kernels().gadget(product, start, length, table_.modulus);
}

void LimbWork::finish_digits() {
    for (u64* work : digits_.work) {
        for (std::size_t leaf = 0; work != nullptr && leaf < leaves(); ++leaf) {
            kernels().leaf_to_lazies(work, leaf, table_);
        }
    }
    finished_ = true;
}

Ahead LimbWork::key_ahead(std::size_t leaf, std::size_t half) {
    ahead_[half] = {};
    for (const u64* row : key_[half]) ahead_[half].push(row + leaf * leaf_size_);
    return {ahead_[half].begin(), ahead_[half].size()};
}

SpecialPart::SpecialPart(const SwitchConstants& constants, std::size_t count)
    : c_(constants), stride_(row_stride(c_.n)), z_(count * c_.special_limbs * stride_) {}

void SpecialPart::take(std::size_t index, std::size_t special, const u64* sum) {
    const NttTable& table = *c_.tables[c_.q_limbs + special];
    table.kernels->inverse_centred(z_.data() + (index * c_.special_limbs + special) * stride_, sum, table,
                                   c_.down.sum(special), c_.down.difference(special));
}

void SpecialPart::convert(std::size_t index, std::size_t q_limb, u64* out) const {
    const Rows from(z_.data() + index * c_.special_limbs * stride_, c_.special_limbs, stride_);
    const NttTable& table = *c_.tables[q_limb];
    table.kernels->forward_converted(out, c_.down.to(q_limb, from.begin()), table);
}

}  // namespace lattice
