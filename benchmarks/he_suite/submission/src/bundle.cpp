#include "bundle.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace suite {
namespace {

constexpr char kMagic[] = "LatSuit1";
constexpr std::size_t kMostLimbs = 128, kMostKeys = 4096, kMostCiphertexts = 1 << 16;
constexpr u64 kSpecialIndex = u64{1} << 31;

// log2(QP) for a ternary secret and 128 bits, eprint 2024/463; from N = 2^10 on.
constexpr double kBound[] = {26, 53, 106, 214, 430, 868, 1747};

[[noreturn]] void damaged() { throw std::runtime_error("a bundle is damaged: write it again with prepare.py"); }

// The client trusts nobody's word for it.
void require_secure(const Scheme& scheme) {
    double bits = 0;
    for (u64 prime : scheme.q) bits += std::log2(static_cast<double>(prime));
    for (u64 prime : scheme.special) bits += std::log2(static_cast<double>(prime));
    if (scheme.log_n < 10 || scheme.log_n > 16 || bits > kBound[scheme.log_n - 10] || scheme.eta != 21) {
        throw std::runtime_error("the parameters are past the bound for 128 bits of security");
    }
}

}  // namespace

Bundle::Bundle(const std::string& path) : file_(path) {
    const std::size_t size = file_.bytes().size(), head = 16 * (1 + static_cast<std::size_t>(Section::count));
    if (size < head || std::memcmp(file_.bytes().data(), kMagic, 8) != 0) damaged();
    const auto* table = reinterpret_cast<const u64*>(file_.bytes().data());
    if (table[1] != static_cast<u64>(Section::count)) damaged();
    for (std::size_t k = 2; k < 2 + 2 * table[1]; k += 2) {
        if (table[k + 1] % 8 != 0 || table[k] % 4096 != 0) damaged();
        if (table[k + 1] != 0 && (table[k] > size || table[k + 1] > size - table[k])) damaged();
    }
}

Words Bundle::words(Section section) const {
    const auto* table = reinterpret_cast<const u64*>(file_.bytes().data()) + 2 + 2 * static_cast<std::size_t>(section);
    if (table[1] == 0) return {};
    return {reinterpret_cast<const u64*>(file_.bytes().data() + table[0]), table[1] / 8};
}

Words Reader::take(std::size_t count) {
    if (count > words_.size()) damaged();
    const Words found = words_.first(count);
    words_ = words_.subspan(count);
    return found;
}

std::size_t Reader::count(u64 most) {
    const u64 found = next();
    if (found > most) damaged();
    return static_cast<std::size_t>(found);
}

Scheme::Scheme(Words words) {
    Reader from(words);
    const Words id = from.take(4);
    identity.assign(id.begin(), id.end());
    log_n = static_cast<int>(from.count(17));
    eta = static_cast<int>(from.count(32));
    for (u64 count : from.take(from.count(kMostLimbs))) {
        if (count == 0 || count > kMostLimbs || (!limbs.empty() && count <= limbs.back())) damaged();
        limbs.push_back(count);
    }
    if (limbs.empty()) damaged();
    const Words primes = from.take(limbs.back());
    q.assign(primes.begin(), primes.end());
    const Words specials = from.take(from.count(kMostLimbs));
    special.assign(specials.begin(), specials.end());
    for (std::size_t level = 0; level < limbs.size(); ++level) {
        digits.emplace_back();
        std::size_t next = 0;
        for (std::size_t left = from.count(kMostLimbs); left != 0; --left) {
            const std::size_t start = from.count(kMostLimbs), end = from.count(limbs[level]);
            if (start != next || end <= start) damaged();
            digits.back().emplace_back(start, next = end);
        }
    }
    for (std::size_t left = from.count(kMostKeys); left != 0; --left) {
        const u64 element = from.next();
        keys.push_back({element, from.count(limbs.size() - 1)});
    }
    if (from.left() != 0) damaged();
    require_secure(*this);
}

Moduli Scheme::extended(std::size_t level) const {
    Moduli all = moduli(level);
    all.insert(all.end(), special.begin(), special.end());
    return all;
}

std::vector<u64> Scheme::indices(std::size_t level, bool with_special) const {
    std::vector<u64> all;
    for (std::size_t k = 0; k < limbs.at(level); ++k) all.push_back(k);
    for (std::size_t k = 0; with_special && k < special.size(); ++k) all.push_back(kSpecialIndex + k);
    return all;
}

std::vector<Packed> read_packed(Reader& from, const Scheme& scheme) {
    std::vector<Packed> all;
    for (std::size_t left = from.count(kMostCiphertexts); left != 0; --left) {
        const std::size_t level = from.count(scheme.limbs.size() - 1);
        const double scale = std::bit_cast<double>(from.next());
        if (from.next() != scheme.n() / 2 || !(scale > 0)) damaged();
        const Words entries = from.take(scheme.n() / 2);
        all.push_back({level, scale, {reinterpret_cast<const std::int64_t*>(entries.data()), entries.size()}});
    }
    return all;
}

ClientPart::ClientPart(Words words, const Scheme& scheme) {
    Reader from(words);
    features = from.count(1 << 20);
    results = from.count(1 << 20);
    batch = from.count(1 << 20);
    inputs = read_packed(from, scheme);
    outputs = read_packed(from, scheme);
    const auto check = [](const std::vector<Packed>& all, std::size_t size) {
        for (const Packed& packed : all) {
            for (std::int64_t entry : packed.entries) {
                if (entry < -1 || entry >= static_cast<std::int64_t>(size)) damaged();
            }
        }
    };
    check(inputs, features * batch);
    check(outputs, results * batch);
    if (from.left() != 0 || batch == 0 || results == 0) damaged();
}

}  // namespace suite
