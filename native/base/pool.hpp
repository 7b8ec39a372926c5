// A few threads that wait for work: limbs are independent, so a call is cut by limb and never waits for a lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>

namespace lattice {

int thread_count();
void set_thread_count(int count);  // 1 … 256, else std::invalid_argument; 1 means only the calling thread

// Runs body(0) … body(count − 1), each once, started in this order, on the calling thread and the pool's. Calls from
// several threads at once are fine: whoever comes while the pool is busy works alone. Bodies must not throw.
void parallel(std::size_t count, const std::function<void(std::size_t)>& body);

// Some bodies of one `parallel` wait for others that were started earlier.
class Countdown {
  public:
    explicit Countdown(std::size_t count) : left_(count) {}
    void one_done() { left_.fetch_sub(1, std::memory_order_release); }
    void wait() const;

  private:
    std::atomic<std::size_t> left_;
};

}  // namespace lattice
