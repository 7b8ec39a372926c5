// Big aligned arrays. Fresh pages cost more than the arithmetic done on them, so buffers are recycled, and large
// ones ask for huge pages: a rotation at N = 2^16 touches 200 MB, which 4 KB pages would spend on TLB misses.
#pragma once

#include <cstddef>
#include <memory>

#include "base/integers.hpp"

namespace lattice {

struct Block {
    u64* data;
    std::size_t words;
};

// At least `words` words, aligned to a cache line, contents undefined. Public data only: returned blocks are kept, and
// serve requests of half their size and more.
Block acquire_block(std::size_t words);
void release_block(Block block) noexcept;

// Frees what is kept; for tests of leaks and before a long idle time.
void trim_buffers() noexcept;
std::size_t buffers_kept_bytes() noexcept;

// Owns one such array.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::size_t words) : block_(acquire_block(words)) {}
    Buffer(Buffer&& other) noexcept : block_(other.block_) { other.block_ = {}; }
    Buffer& operator=(Buffer&& other) noexcept {
        if (this != &other) {
            this->~Buffer();
            new (this) Buffer(static_cast<Buffer&&>(other));
        }
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        if (block_.data != nullptr) release_block(block_);
    }

    u64* data() const { return block_.data; }
    std::size_t words() const { return block_.words; }

    // Grows, never shrinks; contents are lost when it grows. This is what makes a workspace free in the steady state.
    u64* require(std::size_t words) {
        if (words > block_.words) *this = Buffer(words);
        return block_.data;
    }

  private:
    Block block_{};
};

}  // namespace lattice
