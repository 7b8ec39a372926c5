#include "client/secret_buffer.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "base/pool.hpp"
#include "client/encryption.hpp"
#include "client/sampling.hpp"

namespace lattice {

SecretBuffer::SecretBuffer(std::size_t n) : n_(n), log_n_(log2_of(n)), coefficients_(n) {}

void SecretBuffer::require_unwiped() const {
    if (wiped_) throw std::logic_error("the secret was wiped");
}

void SecretBuffer::sample_ternary(const std::uint8_t* bytes, std::size_t count) {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    lattice::sample_ternary(static_cast<std::int8_t*>(coefficients_.data()), n_, bytes, count);
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

void SecretBuffer::pack(std::uint8_t* out) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    const auto* s = static_cast<const std::int8_t*>(coefficients_.data());
    std::fill(out, out + n_ / 4, std::uint8_t{0});
    for (std::size_t i = 0; i < n_; ++i) {
        out[i / 4] = static_cast<std::uint8_t>(out[i / 4] | (s[i] + 1) << (2 * (i % 4)));
    }
}

void SecretBuffer::unpack(const std::uint8_t* packed) {
    const std::lock_guard<std::mutex> lock(mutex_);
    require_unwiped();
    auto* s = static_cast<std::int8_t*>(coefficients_.data());
    bool bad = false;
    for (std::size_t i = 0; i < n_; ++i) {
        const int field = (packed[i / 4] >> (2 * (i % 4))) & 3;
        s[i] = static_cast<std::int8_t>(field - 1);
        bad |= field == 3;
    }
    evaluations_.clear();
    if (bad) {
        lattice::wipe(s, n_);
        throw std::invalid_argument("coefficients must be -1, 0 or 1");
    }
}

const u64* SecretBuffer::evaluations(const NttTable& table) {
    auto found = evaluations_.find(table.modulus.value);
    if (found == evaluations_.end()) {
        LockedMemory memory(n_ * sizeof(u64));
        auto* out = static_cast<u64*>(memory.data());
        transform_small(out, static_cast<const std::int8_t*>(coefficients_.data()), table);
        found = evaluations_.emplace(table.modulus.value, std::move(memory)).first;
    }
    return static_cast<const u64*>(found->second.data());
}

Tables SecretBuffer::prepared(const Moduli& moduli) {
    require_unwiped();
    Tables tables = tables_of(moduli, log_n_, current_isa());
    for (const NttTable* table : tables) evaluations(*table);
    return tables;
}

void SecretBuffer::decrypt(u64* out, const u64* components, std::size_t count, const Moduli& moduli) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Tables tables = prepared(moduli);
    parallel(tables.size(), [&](std::size_t limb) {
        const NttTable& table = *tables[limb];
        const u64* s = evaluations(table);
        const auto component = [&](std::size_t k) { return components + (k * tables.size() + limb) * n_; };
        u64* to = out + limb * n_;
        const u64* sum = component(count - 1);
        for (std::size_t k = count - 1; k-- > 0; sum = to) {
            table.kernels->mul_add(to, component(k), sum, s, n_, table.modulus);  // Horner
        }
        if (count == 1) std::copy(sum, sum + n_, to);
    });
}

void SecretBuffer::multiply(u64* out, const u64* x, const Moduli& moduli) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const Tables tables = prepared(moduli);
    parallel(tables.size(), [&](std::size_t limb) {
        const NttTable& table = *tables[limb];
        table.kernels->mul(out + limb * n_, x + limb * n_, evaluations(table), n_, table.modulus);
    });
}

void SecretBuffer::encrypt(u64* out, const UniformPolynomial& a, const std::int8_t* error, const Hidden& hidden,
                           const Moduli& moduli) {
    if (a.limbs() != moduli.size()) throw std::invalid_argument("as many primes as stream indices are needed");
    if (hidden.gadget && hidden.gadget->size() != moduli.size()) {
        throw std::invalid_argument("the gadget has one number for each prime");
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    const Tables tables = prepared(moduli);
    const Isa isa = current_isa();
    const Permutation* turn = hidden.element ? &permutation(hidden.element, log_n_, isa) : nullptr;
    parallel(tables.size(), [&](std::size_t limb) {
        const NttTable& table = *tables[limb];
        const u64 gadget = hidden.gadget ? (*hidden.gadget)[limb] % table.modulus.value : 0;
        const LimbSecret secret{evaluations(table), turn, gadget};
        const u64* plain = hidden.plain ? hidden.plain + limb * n_ : nullptr;
        encrypt_limb(out + limb * n_, a.limb(limb, table.modulus.value, isa), error, secret, plain, table);
    });
}

bool SecretBuffer::wiped() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return wiped_;
}

bool SecretBuffer::locked() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return coefficients_.locked() &&
           std::all_of(evaluations_.begin(), evaluations_.end(), [](const auto& item) { return item.second.locked(); });
}

void SecretBuffer::wipe() {
    const std::lock_guard<std::mutex> lock(mutex_);
    evaluations_.clear();
    lattice::wipe(coefficients_.data(), coefficients_.bytes());
    wiped_ = true;
}

}  // namespace lattice
