#include "base/memory.hpp"

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lattice {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kKeepBytes = std::size_t{512} << 20;  // more than this idle memory goes back to the system

struct FreeList {
    std::mutex mutex;
    std::map<std::size_t, std::vector<u64*>> by_bytes;
    std::size_t bytes = 0;
};

// Never destroyed: Python may release arrays after static destructors ran.
FreeList& free_list() {
    static FreeList* list = new FreeList;
    return *list;
}

// Sizes are rounded to eighths of a power of two, so that nearly equal requests share buffers.
std::size_t rounded_bytes(std::size_t words) {
    std::size_t bytes = words * sizeof(u64);
    if (bytes < kCacheLine) return kCacheLine;
    std::size_t step = kCacheLine;
    while (step * 16 < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

u64* allocate(std::size_t bytes) {
    const std::size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
    const std::size_t padded = (bytes + alignment - 1) / alignment * alignment;
    void* data = std::aligned_alloc(alignment, padded);
    if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= kHugePage) madvise(data, padded, MADV_HUGEPAGE);
#endif
    return static_cast<u64*>(data);
}

}  // namespace

Block acquire_block(std::size_t words) {
    const std::size_t bytes = rounded_bytes(words);
    FreeList& list = free_list();
    {
        std::lock_guard<std::mutex> lock(list.mutex);
        // The smallest that will do: memory that was touched before is worth more than an exact fit.
        const auto end = list.by_bytes.upper_bound(2 * bytes);
        for (auto found = list.by_bytes.lower_bound(bytes); found != end; ++found) {
            if (found->second.empty()) continue;
            u64* data = found->second.back();
            found->second.pop_back();
            list.bytes -= found->first;
            return {data, found->first / sizeof(u64)};
        }
    }
    return {allocate(bytes), bytes / sizeof(u64)};
}

void release_block(Block block) noexcept {
    const std::size_t bytes = block.words * sizeof(u64);
    FreeList& list = free_list();
    {
        std::lock_guard<std::mutex> lock(list.mutex);
        if (list.bytes + bytes <= kKeepBytes) {
            try {
                list.by_bytes[bytes].push_back(block.data);
                list.bytes += bytes;
                return;
            } catch (const std::bad_alloc&) {  // no room to remember it: give it back
            }
        }
    }
    std::free(block.data);
}

void trim_buffers() noexcept {
    FreeList& list = free_list();
    std::lock_guard<std::mutex> lock(list.mutex);
    for (auto& [bytes, buffers] : list.by_bytes) {
        for (u64* data : buffers) std::free(data);
        buffers.clear();
    }
    list.bytes = 0;
}

std::size_t buffers_kept_bytes() noexcept {
    FreeList& list = free_list();
    std::lock_guard<std::mutex> lock(list.mutex);
    return list.bytes;
}

}  // namespace lattice
