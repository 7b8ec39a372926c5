#include "base/pool.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif
#if defined(LATTICE_X86)
#include <immintrin.h>
#endif

namespace lattice {
namespace {

void pause() {
#if defined(LATTICE_X86)
    _mm_pause();
#endif
}

// Waits are short, unless the system has taken the processor away from the thread that is waited for.
template <class Ready>
void wait_until(Ready ready) {
    for (int spin = 0; !ready(); ++spin) {
        if (spin < 10000) {
            pause();
        } else {
            std::this_thread::yield();
        }
    }
}

int usable_processors() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

// One call of `parallel`. Workers that wake up late must find it alive, hence the shared pointer in Pool.
struct Job {
    const std::function<void(std::size_t)>* body;
    std::size_t count;
    std::atomic<std::size_t> next{0};
    std::atomic<std::size_t> done{0};

    void work() {
        for (std::size_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
            (*body)(item);
            done.fetch_add(1, std::memory_order_release);
        }
    }
};

class Pool {
  public:
    explicit Pool(int workers) {
        for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { serve(); });
    }

    ~Pool() {
        stop_.store(true);
        ticket_.fetch_add(1);
        ticket_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    void run(std::size_t count, const std::function<void(std::size_t)>& body) {
        auto job = std::make_shared<Job>();
        job->body = &body;
        job->count = count;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = job;
        }
        ticket_.fetch_add(1, std::memory_order_release);
        ticket_.notify_all();
        job->work();
        wait_until([&] { return job->done.load(std::memory_order_acquire) == count; });
    }

    std::mutex busy;  // held by the caller whose job runs

  private:
    void serve() {
        unsigned seen = 0;
        while (!stop_.load()) {
            // Phases of one operation follow each other within microseconds: look for a while before sleeping.
            for (int spin = 0; spin < 4000 && ticket_.load(std::memory_order_acquire) == seen; ++spin) pause();
            ticket_.wait(seen, std::memory_order_acquire);
            seen = ticket_.load(std::memory_order_acquire);
            std::shared_ptr<Job> job;
            {
                std::lock_guard<std::mutex> lock(mutex_);
                job = job_;
            }
            if (job) job->work();
        }
    }

    std::vector<std::thread> threads_;
    std::atomic<unsigned> ticket_{0};
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::shared_ptr<Job> job_;
};

struct State {
    std::mutex mutex;
    int count = usable_processors();
    std::shared_ptr<Pool> pool;
    int process = 0;  // a child of fork has no threads and must start its own
};

// Never destroyed: threads may be waiting when the interpreter leaves.
State& state() {
    static State* made = new State;
    return *made;
}

std::shared_ptr<Pool> current_pool() {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
#if defined(__linux__)
    const int process = getpid();
    if (s.process != process) {
        if (s.pool) new std::shared_ptr<Pool>(s.pool);  // the parent's: its threads do not exist here, never join
        s.pool.reset();
        s.process = process;
    }
#endif
    if (!s.pool && s.count > 1) s.pool = std::make_shared<Pool>(s.count - 1);
    return s.pool;
}

}  // namespace

int thread_count() {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    return s.count;
}

void set_thread_count(int count) {
    if (count < 1 || count > 256) throw std::invalid_argument("threads must be 1 … 256");
    std::shared_ptr<Pool> old;  // joined outside the lock, after calls in progress let go of it
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    if (count == s.count) return;
    s.count = count;
    old.swap(s.pool);
}

void Countdown::wait() const {
    wait_until([&] { return left_.load(std::memory_order_acquire) == 0; });
}

void parallel(std::size_t count, const std::function<void(std::size_t)>& body) {
    const std::shared_ptr<Pool> pool = count > 1 ? current_pool() : nullptr;
    if (pool) {
        std::unique_lock<std::mutex> mine(pool->busy, std::try_to_lock);
        if (mine) return pool->run(count, body);
    }
    for (std::size_t item = 0; item < count; ++item) body(item);
}

}  // namespace lattice
