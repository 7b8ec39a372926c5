#include "client/locked_memory.hpp"

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#define LATTICE_HAS_MMAN
#endif

namespace lattice {

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

}  // namespace lattice
