// Memory for secrets: kept out of swap and core dumps where the system allows it, wiped before it is given back.
#pragma once

#include <cstddef>
#include <utility>

namespace lattice {

// Overwrites with zeros, in a way that no compiler removes.
void wipe(void* data, std::size_t bytes) noexcept;

class LockedMemory {
  public:
    LockedMemory() = default;
    explicit LockedMemory(std::size_t bytes);  // zeroed; std::bad_alloc
    LockedMemory(LockedMemory&& other) noexcept;
    LockedMemory& operator=(LockedMemory&& other) noexcept;
    LockedMemory(const LockedMemory&) = delete;
    LockedMemory& operator=(const LockedMemory&) = delete;
    ~LockedMemory();

    void* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }
    bool locked() const { return locked_; }  // false where the limit on locked memory was reached

  private:
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
    bool locked_ = false;
};

// Such memory for the time of one operation, recycled because mapping and locking cost more than most operations. Wiped
// when it goes out of scope; contents are undefined when it comes.
class SecretScratch {
  public:
    explicit SecretScratch(std::size_t bytes);
    SecretScratch(SecretScratch&& other) noexcept : memory_(std::move(other.memory_)), used_(other.used_) {}
    SecretScratch& operator=(SecretScratch&&) = delete;
    SecretScratch(const SecretScratch&) = delete;
    ~SecretScratch();

    void* data() const { return memory_.data(); }
    std::size_t bytes() const { return used_; }

  private:
    LockedMemory memory_;
    std::size_t used_;
};

// Fills with the operating system's randomness, straight from the kernel; std::runtime_error if it has none.
void fill_random(void* data, std::size_t bytes);

}  // namespace lattice
