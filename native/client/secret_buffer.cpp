#include "client/secret_buffer.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace lattice {

SecretBuffer::SecretBuffer(std::size_t n) : n_(n), log_n_(log2_of(n)), coefficients_(n) {}

void SecretBuffer::require_unwiped() const {
    if (wiped_) throw std::logic_error("the secret was wiped");
}

void SecretBuffer::sample_ternary(const std::uint8_t* bytes, std::size_t count) {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    auto* out = static_cast<std::int8_t*>(coefficients_.data());
    std::size_t done = 0;
    // A byte at a time is the same order, because words are little-endian.
    for (std::size_t i = 0; i < count / 8 * 8 && done < n_; ++i) {
        for (int shift = 0; shift < 8 && done < n_; shift += 2) {
            const int field = (bytes[i] >> shift) & 3;
            out[done] = static_cast<std::int8_t>(field - 1);
            done += field < 3;
        }
    }
    if (done < n_) {
        lattice::wipe(out, n_);
        throw std::invalid_argument("too few bytes for that many coefficients");
    }
    evaluations_.clear();
}

void SecretBuffer::set(const std::int8_t* coefficients) {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    if (std::any_of(coefficients, coefficients + n_, [](int c) { return c < -1 || c > 1; })) {
        throw std::invalid_argument("coefficients must be -1, 0 or 1");
    }
    std::memcpy(coefficients_.data(), coefficients, n_);
    evaluations_.clear();
}

void SecretBuffer::get(std::int8_t* coefficients) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    std::memcpy(coefficients, coefficients_.data(), n_);
}

const u64* SecretBuffer::evaluations(const NttTable& table) {
    const u64 q = table.modulus.value;
    auto found = evaluations_.find(q);
    if (found == evaluations_.end()) {
        LockedMemory memory(n_ * sizeof(u64));
        auto* out = static_cast<u64*>(memory.data());
        const auto* s = static_cast<const std::int8_t*>(coefficients_.data());
        const u64 residues[3] = {q - 1, 0, 1};
        for (std::size_t i = 0; i < n_; ++i) out[i] = residues[s[i] + 1];
        table.kernels->forward(out, out, table);
        found = evaluations_.emplace(q, std::move(memory)).first;
    }
    return static_cast<const u64*>(found->second.data());
}

void SecretBuffer::decrypt(u64* out, const u64* components, std::size_t count, const Moduli& moduli) {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    const Tables tables = tables_of(moduli, log_n_, current_isa());
    for (std::size_t limb = 0; limb < tables.size(); ++limb) {
        const NttTable& table = *tables[limb];
        const u64* s = evaluations(table);
        const auto component = [&](std::size_t k) { return components + (k * tables.size() + limb) * n_; };
        u64* to = out + limb * n_;
        std::copy(component(count - 1), component(count - 1) + n_, to);
        for (std::size_t k = count - 1; k-- > 0;) {
            table.kernels->mul_add(to, component(k), to, s, n_, table.modulus);  // Horner
        }
    }
}

void SecretBuffer::multiply(u64* out, const u64* x, const Moduli& moduli) {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    const Tables tables = tables_of(moduli, log_n_, current_isa());
    for (std::size_t limb = 0; limb < tables.size(); ++limb) {
        const NttTable& table = *tables[limb];
        table.kernels->mul(out + limb * n_, x + limb * n_, evaluations(table), n_, table.modulus);
    }
}

bool SecretBuffer::wiped() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return wiped_;
}

void SecretBuffer::wipe() {
    const std::lock_guard<std::mutex> lock(mutex_);
    evaluations_.clear();
    lattice::wipe(coefficients_.data(), coefficients_.bytes());
    wiped_ = true;
}

}  // namespace lattice
