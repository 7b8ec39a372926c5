#include "client/locked_memory.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define LATTICE_HAS_MMAN
#endif
#if defined(__linux__)
#include <sys/random.h>
#endif

namespace lattice {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kKeptBytes = std::size_t{4} << 20;  // of locked memory there is little: often 8 MB for a process

struct Kept {
    std::mutex mutex;
    std::map<std::size_t, std::vector<LockedMemory>> by_bytes;
    std::size_t bytes = 0;
};

// Never destroyed: Python may release arrays after static destructors ran.
Kept& kept() {
    static Kept* made = new Kept;
    return *made;
}

LockedMemory take(std::size_t bytes) {
    std::size_t rounded = kPage;
    while (rounded < bytes) rounded *= 2;
    Kept& k = kept();
    {
        const std::lock_guard<std::mutex> lock(k.mutex);
        auto found = k.by_bytes.find(rounded);
        if (found != k.by_bytes.end() && !found->second.empty()) {
            LockedMemory memory = std::move(found->second.back());
            found->second.pop_back();
            k.bytes -= rounded;
            return memory;
        }
    }
    return LockedMemory(rounded);
}

}  // namespace

void wipe(void* data, std::size_t bytes) noexcept {
    if (bytes == 0) return;
#if defined(__GLIBC__)
    explicit_bzero(data, bytes);
#else
    std::memset(data, 0, bytes);
    __asm__ volatile("" : : "r"(data) : "memory");
#endif
}

LockedMemory::LockedMemory(std::size_t bytes) : bytes_(bytes) {
#if defined(LATTICE_HAS_MMAN)
    void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    data_ = data;
    locked_ = mlock(data, bytes) == 0;
#if defined(MADV_DONTDUMP)
    madvise(data, bytes, MADV_DONTDUMP);
#endif
#else
    data_ = std::calloc(bytes, 1);
    if (data_ == nullptr) throw std::bad_alloc();
#endif
}

LockedMemory::LockedMemory(LockedMemory&& other) noexcept { *this = std::move(other); }

LockedMemory& LockedMemory::operator=(LockedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(locked_, other.locked_);
    return *this;
}

LockedMemory::~LockedMemory() {
    if (data_ == nullptr) return;
    wipe(data_, bytes_);
#if defined(LATTICE_HAS_MMAN)
    munmap(data_, bytes_);
#else
    std::free(data_);
#endif
}

SecretScratch::SecretScratch(std::size_t bytes) : memory_(take(bytes)), used_(bytes) {}

SecretScratch::~SecretScratch() {
    if (memory_.data() == nullptr) return;
    wipe(memory_.data(), used_);
    Kept& k = kept();
    const std::lock_guard<std::mutex> lock(k.mutex);
    if (k.bytes + memory_.bytes() > kKeptBytes) return;
    const std::size_t size = memory_.bytes();
    try {
        k.by_bytes[size].push_back(std::move(memory_));
        k.bytes += size;
    } catch (const std::bad_alloc&) {  // no room to remember it: it is given back
    }
}

void fill_random(void* data, std::size_t bytes) {
    auto* to = static_cast<unsigned char*>(data);
    while (bytes > 0) {
        const std::size_t piece = bytes < 256 ? bytes : 256;  // what no signal interrupts
#if defined(__linux__)
        const ssize_t got = getrandom(to, piece, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) throw std::runtime_error("the operating system gave no randomness");
        const auto done = static_cast<std::size_t>(got);
#elif defined(LATTICE_HAS_MMAN)
        if (getentropy(to, piece) != 0) throw std::runtime_error("the operating system gave no randomness");
        const std::size_t done = piece;
#else
        throw std::runtime_error("no source of randomness is known on this system");
        const std::size_t done = piece;
#endif
        to += done;
        bytes -= done;
    }
}

}  // namespace lattice
