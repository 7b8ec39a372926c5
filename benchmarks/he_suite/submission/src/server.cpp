#include "server.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "base/pool.hpp"
#include "bits.hpp"
#include "clock.hpp"
#include "client/encryption.hpp"
#include "client/sampling.hpp"
#include "hal/division.hpp"
#include "streams.hpp"

namespace suite {
namespace {

constexpr double kNoiseRoom = 0x1p50;
constexpr std::size_t kFewQueries = 4;

std::vector<u64> vector_of(Words words) { return {words.begin(), words.end()}; }

// Refuses what was made for another program; the rest of the file.
Bytes after_identity(const MappedFile& file, const Scheme& scheme) {
    Bytes left = file.bytes();
    if (std::memcmp(take(left, 32).data(), scheme.identity.data(), 32) != 0) {
        throw std::runtime_error("a file was made for another program");
    }
    return left;
}

std::size_t weight_words(const lattice::Plan& plan, const lattice::PlanWeight& w) {
    const std::size_t count = w.kind == lattice::WeightKind::plaintext ? 1 : w.count;
    return plan.weight_limbs(w) * w.values * count;
}

}  // namespace

BlindingBytes random_bytes(const Scheme& scheme, std::size_t) {
    BlindingBytes out;
    out.ephemeral.resize(ternary_bytes(scheme.n()));
    for (auto* errors : {&out.first_error, &out.second_error, &out.noise}) errors->resize(8 * scheme.n());
    for (auto* bytes : {&out.ephemeral, &out.first_error, &out.second_error, &out.noise}) {
        lattice::fill_random(bytes->data(), bytes->size());
    }
    return out;
}

Server::Server(const Workload& workload)
    : bundle_(workload.bundle("server")),
      scheme_(bundle_.words(Section::scheme)),
      encoder_(scheme_.log_n, bundle_.words(Section::twiddles)),
      plan_(vector_of(bundle_.words(Section::plan))) {
    Reader results(bundle_.words(Section::results));
    results_ = read_packed(results, scheme_);
    Reader weights(bundle_.words(Section::weights));
    for (const lattice::PlanWeight& w : plan_.weights()) weights_.push_back(weights.take(weight_words(plan_, w)).data());
    bool fine = plan_.log_n() == scheme_.log_n && plan_.output_types().size() == results_.size();
    for (std::size_t k = 0; fine && k < results_.size(); ++k) {
        fine = plan_.output_types()[k] == lattice::RegisterType{2, results_[k].level};
    }
    if (!fine) throw std::runtime_error("the server's bundle does not fit itself");
    std::size_t out = 0;
    for (const auto& type : plan_.output_types()) out += 2 * plan_.limbs(type.level) * plan_.n();
    u64* output = output_words_.require(out);
    for (const auto& type : plan_.output_types()) {
        outputs_.push_back(output);
        output += 2 * plan_.limbs(type.level) * plan_.n();
    }
}

void Server::load_keys(const Workload& workload) {
    key_file_ = std::make_unique<MappedFile>(workload.evaluation_keys());
    Bytes left = after_identity(*key_file_, scheme_);
    packed_keys_.reserve(scheme_.keys.size());
    for (const KeySpec& spec : scheme_.keys) packed_keys_.emplace_back(scheme_, spec, left);
    if (!left.empty()) throw std::runtime_error("there are more keys than the program has");
    upload_ = std::make_unique<MappedFile>(workload.upload());
    queries_ = count_queries(scheme_, plan_.inputs(), after_identity(*upload_, scheme_));
    std::vector<lattice::KeyView> views;
    // On several threads an exception of a row's would end the process.
    if (workload.is_batch() || queries_ > kFewQueries || lattice::thread_count() > 1) {
        views = kept_keys();
    } else {
        for (const PackedKey& key : packed_keys_) views.push_back({nullptr, key.limbs(), &key});
    }
    for (const lattice::PlanKey& wanted : plan_.keys()) keys_.push_back(views[nearest(wanted)]);
    public_key_ = std::make_unique<MappedFile>(workload.public_key());
    after_identity(*public_key_, scheme_);
}

std::vector<lattice::KeyView> Server::kept_keys() {
    std::size_t total = 0;
    for (const PackedKey& key : packed_keys_) total += key.digits() * 2 * key.limbs() * scheme_.n();
    u64* to = key_words_.require(total);
    std::vector<lattice::KeyView> views;
    for (const PackedKey& key : packed_keys_) {
        views.push_back({to, key.limbs()});
        for (std::size_t row = 0; row < key.digits() * 2 * key.limbs(); ++row, to += scheme_.n()) {
            key.read(to, row / key.limbs() / 2, row / key.limbs() % 2, row % key.limbs());
        }
    }
    return views;
}

// One key serves all levels up to its own.
std::size_t Server::nearest(const lattice::PlanKey& wanted) const {
    std::size_t best = scheme_.keys.size();
    for (std::size_t k = 0; k < scheme_.keys.size(); ++k) {
        const bool serves = scheme_.keys[k].element == wanted.element && scheme_.keys[k].level >= wanted.level;
        if (serves && (best == scheme_.keys.size() || scheme_.keys[k].level < scheme_.keys[best].level)) best = k;
    }
    if (best == scheme_.keys.size()) throw std::runtime_error("the plan wants a key that the client does not make");
    return best;
}

void Server::answer(const Workload& workload, const BlindingSource& source) {
    std::vector<std::uint8_t> out;
    Bytes left = after_identity(*upload_, scheme_);
    for (std::size_t query = 0; query < queries_; ++query) {
        const PackedInputs inputs(scheme_, plan_.inputs(), left);
        const Clock evaluating;
        const std::vector<const u64*> none(plan_.inputs().size(), nullptr);
        lattice::run_plan(plan_, {none, weights_, keys_, outputs_, &inputs});
        evaluation_ms_ += evaluating.ms();
        const Clock blinding;
        for (std::size_t k = 0; k < outputs_.size(); ++k) {
            blind(outputs_[k], k, results_[k].level, source(scheme_, query * outputs_.size() + k));
        }
        blinding_ms_ += blinding.ms();
        for (std::size_t k = 0; k < outputs_.size(); ++k) {
            const Moduli moduli = scheme_.moduli(results_[k].level);
            for (std::size_t half = 0; half < 2; ++half) {
                pack(out, outputs_[k] + half * moduli.size() * scheme_.n(), moduli, scheme_.n());
            }
        }
    }
    write_file(workload.download(), {out});
}

// Noise in every slot without a result and in all imaginary parts, and an encryption of zero under the public key.
void Server::blind(u64* output, std::size_t number, std::size_t level, const BlindingBytes& bytes) {
    const std::size_t n = scheme_.n();
    const Moduli kept = scheme_.moduli(level), wide = scheme_.extended(level);
    Bytes packed = public_key_->bytes().subspan(32);
    const Seed seed = take_seed(packed);
    std::vector<u64> b(wide.size() * n), zero(2 * wide.size() * n), sum(2 * kept.size() * n), noise(kept.size() * n);
    const Moduli all = scheme_.extended(scheme_.limbs.size() - 1);
    for (std::size_t limb = 0, at = 0; limb < all.size(); ++limb) {  // the key cut to the level
        if (limb < kept.size() || limb >= scheme_.q.size()) {
            unpack_limb(b.data() + at++ * n, packed, all[limb], n);
        } else {
            take(packed, packed_bytes({all[limb]}, n));
        }
    }
    const auto u = lattice::SmallPolynomial::ternary(n, bytes.ephemeral.data(), bytes.ephemeral.size());
    const auto e0 = lattice::SmallPolynomial::error(n, bytes.first_error.data(), 8 * n, scheme_.eta);
    const auto e1 = lattice::SmallPolynomial::error(n, bytes.second_error.data(), 8 * n, scheme_.eta);
    const std::int8_t* const errors[2] = {e0.data(), e1.data()};
    lattice::encrypt_zero(zero.data(), b.data(), public_half(scheme_, level, seed), u.data(), errors, wide, scheme_.log_n);
    const lattice::Isa isa = lattice::current_isa();
    lattice::divide(lattice::division_constants(kept, scheme_.special, scheme_.log_n, isa), sum.data(), zero.data(), 2);

    double room = 0.125;
    for (u64 q : kept) room *= static_cast<double>(q);
    room = std::min(std::floor(room), kNoiseRoom);
    Reals real(n / 2), imaginary(n / 2);
    for (std::size_t k = 0; k < n; ++k) {
        std::int64_t word;
        std::memcpy(&word, bytes.noise.data() + 8 * k, 8);
        const double x = static_cast<double>(word) * (room / 0x1p63);
        if (k >= n / 2) {
            imaginary[k - n / 2] = x;
        } else {
            real[k] = results_[number].entries[k] >= 0 ? 0.0 : x;
        }
    }
    encoder_.encode(noise.data(), real, imaginary, 1.0, kept);
    for (std::size_t limb = 0; limb < kept.size(); ++limb) {
        const lattice::NttTable& table = lattice::ntt_table(kept[limb], scheme_.log_n, isa);
        u64 *c0 = output + limb * n, *c1 = c0 + kept.size() * n;
        table.kernels->add(c0, c0, sum.data() + limb * n, n, table.modulus);
        table.kernels->add(c0, c0, noise.data() + limb * n, n, table.modulus);
        table.kernels->add(c1, c1, sum.data() + (kept.size() + limb) * n, n, table.modulus);
    }
}

}  // namespace suite
