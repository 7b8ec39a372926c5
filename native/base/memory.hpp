// Big aligned arrays. Fresh pages cost more than the arithmetic done on them, so buffers are recycled, and large
// ones ask for huge pages: a rotation at N = 2^16 touches 200 MB, which 4 KB pages would spend on TLB misses.
#pragma once

#include <cstddef>
#include <memory>

#include "base/integers.hpp"

namespace lattice {

// At least `words` words, aligned to a cache line, contents undefined. Public data only: returned buffers are kept.
u64* acquire_buffer(std::size_t words);
void release_buffer(u64* data, std::size_t words) noexcept;

// Frees what is kept; for tests of leaks and before a long idle time.
void trim_buffers() noexcept;
std::size_t buffers_kept_bytes() noexcept;

// Owns one such array.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::size_t words) : data_(acquire_buffer(words)), words_(words) {}
    Buffer(Buffer&& other) noexcept : data_(other.data_), words_(other.words_) {
        other.data_ = nullptr;
        other.words_ = 0;
    }
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
        if (data_ != nullptr) release_buffer(data_, words_);
    }

    u64* data() const { return data_; }
    std::size_t words() const { return words_; }

    // Grows, never shrinks; contents are lost when it grows. This is what makes a workspace free in the steady state.
    u64* require(std::size_t words) {
        if (words > words_) *this = Buffer(words);
        return data_;
    }

  private:
    u64* data_ = nullptr;
    std::size_t words_ = 0;
};

}  // namespace lattice
