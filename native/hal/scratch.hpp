// Working memory that outlives one call, and short lists that need none.
#pragma once

#include <array>

#include "base/memory.hpp"

namespace lattice {

// More primes or digits than this are refused when constants are made.
constexpr std::size_t kMostLimbs = 256;

// One thread's own; each buffer grows to what the largest operation needs and stays.
struct Scratch {
    Buffer digits, sums, rest, keys;
};
Scratch& scratch();

// A list of pointers on the stack.
template <class Pointer>
class PointerList {
  public:
    PointerList() = default;
    void push(Pointer p) { items_[count_++] = p; }
    Pointer& operator[](std::size_t i) { return items_[i]; }
    Pointer operator[](std::size_t i) const { return items_[i]; }
    const Pointer* begin() const { return items_.data(); }
    const Pointer* end() const { return items_.data() + count_; }
    std::size_t size() const { return count_; }

  private:
    std::array<Pointer, kMostLimbs> items_;
    std::size_t count_ = 0;
};

// The rows of a matrix [count, n].
class Rows : public PointerList<const u64*> {
  public:
    Rows(const u64* data, std::size_t count, std::size_t n) {
        for (std::size_t i = 0; i < count; ++i) push(data + i * n);
    }
};

}  // namespace lattice
