// Memory for secrets: kept out of swap and core dumps where the system allows it, wiped before it is given back.
#pragma once

#include <cstddef>

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

}  // namespace lattice
