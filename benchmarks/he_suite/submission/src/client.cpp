#include "client.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <string>

#include "base/integers.hpp"
#include "bits.hpp"
#include "client/sampling.hpp"
#include "client/secret_buffer.hpp"
#include "streams.hpp"

namespace suite {
namespace {

using lattice::SecretBuffer;

struct Client {
    explicit Client(const Workload& workload)
        : bundle(workload.bundle("client")),
          scheme(bundle.words(Section::scheme)),
          part(bundle.words(Section::client), scheme),
          encoder(scheme.log_n, bundle.words(Section::twiddles)) {}

    Bundle bundle;
    Scheme scheme;
    ClientPart part;
    Encoder encoder;
};

void open_secret(SecretBuffer& secret, const Workload& workload) {
    const MappedFile file(workload.secret_key());
    if (file.bytes().size() != secret.n() / 4) throw std::runtime_error("the secret key is another program's");
    secret.unpack(file.bytes().data());
}

std::vector<double> read_reals(const std::string& path) {
    const MappedFile file(path);
    std::vector<double> out(file.bytes().size() / sizeof(double));
    std::memcpy(out.data(), file.bytes().data(), out.size() * sizeof(double));
    return out;
}

Bytes bytes_of(const std::vector<double>& x) {
    return {reinterpret_cast<const std::uint8_t*>(x.data()), x.size() * sizeof(double)};
}

// e − a·s + what is hidden, packed.
class Encryptor {
  public:
    Encryptor(const Scheme& scheme, SecretBuffer& secret) : scheme_(scheme), secret_(secret), error_(8 * scheme.n()) {}

    void append(std::vector<std::uint8_t>& out, const lattice::UniformPolynomial& a, const lattice::Hidden& hidden,
                const Moduli& moduli) {
        poly_.resize(moduli.size() * scheme_.n());
        auto* bytes = static_cast<std::uint8_t*>(error_.data());
        lattice::fill_random(bytes, error_.bytes());
        const auto e = lattice::SmallPolynomial::error(scheme_.n(), bytes, error_.bytes(), scheme_.eta);
        secret_.encrypt(poly_.data(), a, e.data(), hidden, moduli);
        pack(out, poly_.data(), moduli, scheme_.n());
    }

  private:
    const Scheme& scheme_;
    SecretBuffer& secret_;
    lattice::SecretScratch error_;
    std::vector<u64> poly_;
};

// P at the digit's primes, zero elsewhere.
Moduli gadget_of(const Scheme& scheme, const Moduli& moduli, lattice::LimbRange digit) {
    Moduli gadget(moduli.size(), 0);
    for (std::size_t limb = digit.first; limb < digit.second; ++limb) {
        gadget[limb] = 1;
        for (u64 p : scheme.special) gadget[limb] = lattice::mul_mod(gadget[limb], p % moduli[limb], moduli[limb]);
    }
    return gadget;
}

Seed append_seed(std::vector<std::uint8_t>& out) {
    Seed seed;
    lattice::fill_random(seed.data(), seed.size());
    out.insert(out.end(), seed.begin(), seed.end());
    return seed;
}

std::vector<std::uint8_t> identity_bytes(const Scheme& scheme) {
    std::vector<std::uint8_t> out(32);
    std::memcpy(out.data(), scheme.identity.data(), out.size());
    return out;
}

void append_key(std::vector<std::uint8_t>& out, Encryptor& encryptor, const Scheme& scheme, const KeySpec& spec) {
    const Moduli moduli = scheme.extended(spec.level);
    const Seed seed = append_seed(out);
    for (std::size_t d = 0; d < scheme.digits[spec.level].size(); ++d) {
        const Moduli gadget = gadget_of(scheme, moduli, scheme.digits[spec.level][d]);
        encryptor.append(out, key_half(scheme, spec, seed, d), {nullptr, &gadget, spec.element}, moduli);
    }
}

std::size_t samples_of(const std::vector<double>& features, const ClientPart& part) {
    if (features.size() % part.features != 0 || features.empty()) throw std::runtime_error("the features are not whole");
    return features.size() / part.features;
}

}  // namespace

void generate_keys(const Workload& workload) {
    const Bundle bundle(workload.bundle("client"));
    const Scheme scheme(bundle.words(Section::scheme));
    SecretBuffer secret(scheme.n());
    {
        lattice::SecretScratch uniform(ternary_bytes(scheme.n()));
        auto* bytes = static_cast<std::uint8_t*>(uniform.data());
        lattice::fill_random(bytes, uniform.bytes());
        secret.sample_ternary(bytes, uniform.bytes());
    }
    lattice::SecretScratch packed(scheme.n() / 4);
    secret.pack(static_cast<std::uint8_t*>(packed.data()));
    write_file(workload.secret_key(), {{static_cast<const std::uint8_t*>(packed.data()), packed.bytes()}}, true);

    Encryptor encryptor(scheme, secret);
    std::vector<std::uint8_t> evaluation = identity_bytes(scheme), open = evaluation;
    for (const KeySpec& spec : scheme.keys) append_key(evaluation, encryptor, scheme, spec);
    const std::size_t top = scheme.limbs.size() - 1;
    const Seed seed = append_seed(open);
    encryptor.append(open, public_half(scheme, top, seed), {}, scheme.extended(top));
    write_file(workload.evaluation_keys(), {evaluation});
    write_file(workload.public_key(), {open});
}

void preprocess(const Workload& workload) {
    const MappedFile file(workload.pixels());
    const auto* at = reinterpret_cast<const char*>(file.bytes().data());
    const char* const end = at + file.bytes().size();
    std::vector<double> pixels;
    pixels.reserve(file.bytes().size() / 9 + 1);
    while (true) {
        while (at != end && (*at == ' ' || *at == '\n' || *at == '\r')) ++at;
        if (at == end) break;
        double pixel;
        const auto [next, error] = std::from_chars(at, end, pixel);
        if (error != std::errc{} || !(pixel >= 0 && pixel <= 1)) throw std::runtime_error("a pixel is not in [0, 1]");
        pixels.push_back(pixel);
        at = next;
    }
    write_file(workload.inputs(), {bytes_of(pixels)});
}

void encrypt_features(const Workload& workload) {
    const Client client(workload);
    const Scheme& scheme = client.scheme;
    SecretBuffer secret(scheme.n());
    open_secret(secret, workload);
    Encryptor encryptor(scheme, secret);
    std::vector<double> features = read_reals(workload.inputs());
    const std::size_t samples = samples_of(features, client.part), batch = client.part.batch;
    const std::size_t queries = (samples + batch - 1) / batch, each = client.part.features * batch;
    features.resize(queries * each);
    std::vector<std::uint8_t> out = identity_bytes(scheme);
    std::vector<u64> plain;
    Reals real(scheme.n() / 2), imaginary(scheme.n() / 2);
    for (std::size_t query = 0; query < queries; ++query) {
        for (const Packed& input : client.part.inputs) {
            const Moduli moduli = scheme.moduli(input.level);
            for (std::size_t k = 0; k < real.size(); ++k) {
                const std::int64_t entry = input.entries[k];
                real[k] = entry < 0 ? 0.0 : features[query * each + static_cast<std::size_t>(entry)];
                imaginary[k] = 0.0;
            }
            plain.resize(moduli.size() * scheme.n());
            client.encoder.encode(plain.data(), real, imaginary, input.scale, moduli);
            const Seed seed = append_seed(out);
            encryptor.append(out, ciphertext_half(scheme, input.level, seed), {plain.data(), nullptr, 0}, moduli);
        }
    }
    write_file(workload.upload(), {out});
}

void decrypt_scores(const Workload& workload) {
    const Client client(workload);
    const Scheme& scheme = client.scheme;
    const ClientPart& part = client.part;
    SecretBuffer secret(scheme.n());
    open_secret(secret, workload);
    const std::size_t samples = samples_of(read_reals(workload.inputs()), part), each = part.batch * part.results;
    const MappedFile file(workload.download());
    Bytes left = file.bytes();
    std::vector<double> scores;
    std::vector<u64> pair, poly;
    while (scores.size() < samples * part.results) {
        std::vector<double> total(each), count(each);
        for (const Packed& output : part.outputs) {
            const Moduli moduli = scheme.moduli(output.level);
            pair.resize(2 * moduli.size() * scheme.n());
            poly.resize(moduli.size() * scheme.n());
            for (std::size_t half = 0; half < 2; ++half) {
                unpack(pair.data() + half * poly.size(), left, moduli, scheme.n());
            }
            secret.decrypt(poly.data(), pair.data(), 2, moduli);
            const Reals slots = client.encoder.decode(poly.data(), output.scale, moduli);
            for (std::size_t k = 0; k < slots.size(); ++k) {
                if (output.entries[k] < 0) continue;
                total[static_cast<std::size_t>(output.entries[k])] += slots[k];
                count[static_cast<std::size_t>(output.entries[k])] += 1.0;
            }
        }
        for (std::size_t k = 0; k < each; ++k) scores.push_back(total[k] / count[k]);
    }
    if (!left.empty()) throw std::runtime_error("there are more results than there were queries");
    scores.resize(samples * part.results);
    write_file(workload.scores(), {bytes_of(scores)});
}

void write_predictions(const Workload& workload) {
    const Bundle bundle(workload.bundle("client"));
    const Scheme scheme(bundle.words(Section::scheme));
    const std::size_t results = ClientPart(bundle.words(Section::client), scheme).results;
    const std::vector<double> scores = read_reals(workload.scores());
    std::string out;
    for (std::size_t at = 0; at + results <= scores.size(); at += results) {
        const auto first = scores.begin() + static_cast<long>(at), last = first + static_cast<long>(results);
        out += std::to_string(std::max_element(first, last) - first) + "\n";
    }
    write_file(workload.predictions(), {{reinterpret_cast<const std::uint8_t*>(out.data()), out.size()}});
}

}  // namespace suite
