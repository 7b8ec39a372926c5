// What benchmarks/he_suite/bundle.py writes: a compiled model, mapped into memory.
#pragma once

#include <vector>

#include "files.hpp"
#include "hal/conversion.hpp"
#include "hal/switch_constants.hpp"

namespace suite {

using lattice::Moduli;
using lattice::u64;
using Words = std::span<const u64>;

enum class Section { scheme, twiddles, client, results, plan, weights, count };

class Bundle {
  public:
    explicit Bundle(const std::string& path);  // std::runtime_error unless its sections lie inside the file

    Words words(Section section) const;

  private:
    MappedFile file_;
};

// Words, one after another; std::runtime_error at the end.
class Reader {
  public:
    explicit Reader(Words words) : words_(words) {}
    u64 next() { return take(1)[0]; }
    std::size_t count(u64 most);  // refuses larger ones
    Words take(std::size_t count);
    std::size_t left() const { return words_.size(); }

  private:
    Words words_;
};

struct KeySpec {
    u64 element;
    std::size_t level;
};

// The parameters, and which keys the program needs.
struct Scheme {
    explicit Scheme(Words words);  // std::runtime_error also where the primes are past the 128-bit bound

    std::size_t n() const { return std::size_t{1} << log_n; }
    Moduli moduli(std::size_t level) const { return {q.begin(), q.begin() + static_cast<long>(limbs.at(level))}; }
    Moduli extended(std::size_t level) const;            // with the special primes
    std::vector<u64> indices(std::size_t level, bool special) const;  // of the limbs' streams

    std::vector<u64> identity;  // of the program
    int log_n, eta;
    std::vector<std::size_t> limbs;  // by level
    Moduli q, special;
    std::vector<std::vector<lattice::LimbRange>> digits;  // by level
    std::vector<KeySpec> keys;
};

// One ciphertext: which entry of the flattened batch each slot holds, or −1.
struct Packed {
    std::size_t level;
    double scale;
    std::span<const std::int64_t> entries;
};

std::vector<Packed> read_packed(Reader& from, const Scheme& scheme);

struct ClientPart {
    ClientPart(Words words, const Scheme& scheme);

    std::size_t features, results, batch;
    std::vector<Packed> inputs, outputs;
};

}  // namespace suite
