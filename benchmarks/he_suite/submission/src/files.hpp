// Files of a run: the harness calls every executable in its root folder, with the size of the workload.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace suite {

using Bytes = std::span<const std::uint8_t>;

// A whole file, mapped for reading.
class MappedFile {
  public:
    explicit MappedFile(const std::string& path);  // std::runtime_error
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;
    ~MappedFile();

    Bytes bytes() const { return {static_cast<const std::uint8_t*>(data_), size_}; }

  private:
    void* data_ = nullptr;
    std::size_t size_ = 0;
};

// Makes the folders above it. `secret`: only the owner may read it.
void write_file(const std::string& path, const std::vector<Bytes>& parts, bool secret = false);

// Where the harness and the executables keep things.
class Workload {
  public:
    explicit Workload(int size);  // std::invalid_argument unless 0 … 3

    bool is_batch() const { return packing_ == "batch"; }
    std::string bundle(const std::string& name) const;  // of this size's model
    std::string pixels() const { return "datasets/" + name_ + "/intermediate/test_pixels.txt"; }
    std::string inputs() const { return io() + "intermediate/features.bin"; }
    std::string evaluation_keys() const { return io() + "public_keys/evaluation_keys.bin"; }
    std::string public_key() const { return io() + "public_keys/public_key.bin"; }
    std::string secret_key() const { return io() + "secret_key/secret_key.bin"; }
    std::string upload() const { return io() + "ciphertexts_upload/inputs.bin"; }
    std::string download() const { return io() + "ciphertexts_download/outputs.bin"; }
    std::string scores() const { return io() + "intermediate/scores.bin"; }
    std::string predictions() const { return io() + "encrypted_model_predictions.txt"; }

  private:
    std::string io() const { return "io/" + name_ + "/"; }

    std::string name_, packing_;
};

// For a process that ends soon. Memory is never given back; and it comes in small pages, which are mostly ones that another
// process has just left: huge ones are what virtual machines hand back to their host, and cost milliseconds to get again.
void use_memory_once();

// The body of every executable: its one argument is the size; exceptions become a line on stderr and status 1.
int run_step(int argc, char** argv, void (*step)(const Workload&));

}  // namespace suite
