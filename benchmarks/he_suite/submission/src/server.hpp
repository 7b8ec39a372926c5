// The server: keys and ciphertexts in, the plan run by native/program, blinded results out. No secret of the client's.
#pragma once

#include <functional>
#include <memory>

#include "base/memory.hpp"
#include "bundle.hpp"
#include "encoder.hpp"
#include "packed.hpp"
#include "program/runner.hpp"

namespace suite {

// What blinds one output: uniform bytes for u, e0, e1 and the slots' noise (see lattice.fhe.blinding).
struct BlindingBytes {
    std::vector<std::uint8_t> ephemeral, first_error, second_error, noise;
};
using BlindingSource = std::function<BlindingBytes(const Scheme&, std::size_t output)>;

// Fresh from the operating system for every output.
BlindingBytes random_bytes(const Scheme& scheme, std::size_t output);

class Server {
  public:
    explicit Server(const Workload& workload);

    // The keys are unpacked and their uniform halves expanded: now, or row by row where so few queries came that fresh
    // memory for all of it would cost more.
    void load_keys(const Workload& workload);
    // Answers all queries of the upload.
    void answer(const Workload& workload, const BlindingSource& source);

    double evaluation_ms() const { return evaluation_ms_; }
    double blinding_ms() const { return blinding_ms_; }
    std::size_t queries() const { return queries_; }

  private:
    void blind(u64* output, std::size_t number, std::size_t level, const BlindingBytes& bytes);
    std::vector<lattice::KeyView> kept_keys();
    std::size_t nearest(const lattice::PlanKey& wanted) const;

    Bundle bundle_;
    Scheme scheme_;
    Encoder encoder_;
    std::vector<Packed> results_;
    lattice::Plan plan_;
    std::vector<const u64*> weights_;
    std::unique_ptr<MappedFile> key_file_, public_key_, upload_;
    std::vector<PackedKey> packed_keys_;  // by the scheme's
    lattice::Buffer key_words_;
    std::vector<lattice::KeyView> keys_;  // by the plan's
    lattice::Buffer output_words_;
    std::vector<u64*> outputs_;
    double evaluation_ms_ = 0, blinding_ms_ = 0;
    std::size_t queries_ = 0;
};

}  // namespace suite
