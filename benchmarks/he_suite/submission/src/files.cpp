#include "files.hpp"

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "base/pool.hpp"

namespace suite {
namespace {

[[noreturn]] void fail(const std::string& what, const std::string& path) {
    throw std::runtime_error(what + " " + path + ": " + std::strerror(errno));
}

void make_folders(const std::string& path) {
    for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
        if (mkdir(path.substr(0, at).c_str(), 0777) != 0 && errno != EEXIST) fail("cannot make the folders of", path);
    }
}

class Descriptor {
  public:
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number_ >= 0) close(number_);
    }
    int number() const { return number_; }

  private:
    int number_;
};

}  // namespace

MappedFile::MappedFile(const std::string& path) {
    const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts {};
    if (file.number() < 0 || fstat(file.number(), &facts) != 0) fail("cannot read", path);
    size_ = static_cast<std::size_t>(facts.st_size);
    if (size_ == 0) return;
    data_ = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file.number(), 0);
    if (data_ == MAP_FAILED) fail("cannot map", path);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) munmap(data_, size_);
}

void write_file(const std::string& path, const std::vector<Bytes>& parts, bool secret) {
    make_folders(path);
    const Descriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, secret ? 0600 : 0666));
    if (file.number() < 0) fail("cannot write", path);
    for (Bytes part : parts) {
        while (!part.empty()) {
            const ssize_t written = write(file.number(), part.data(), part.size());
            if (written < 0 && errno == EINTR) continue;
            if (written <= 0) fail("cannot write", path);
            part = part.subspan(static_cast<std::size_t>(written));
        }
    }
}

Workload::Workload(int size) {
    static constexpr std::array<const char*, 4> kNames{"single", "small", "medium", "large"};
    if (size < 0 || size > 3) throw std::invalid_argument("the size is 0 … 3");
    name_ = kNames[static_cast<std::size_t>(size)];
    packing_ = size < 2 ? "single" : "batch";
}

std::string Workload::bundle(const std::string& name) const {
    const char* folder = std::getenv("LATTICE_SUITE_BUNDLES");
    return std::string(folder != nullptr ? folder : "submission/bundles") + "/" + packing_ + "/" + name + ".bundle";
}

void use_memory_once() {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, -1);
#endif
#if defined(__linux__)
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
#endif
}

int run_step(int argc, char** argv, void (*step)(const Workload&)) {
    try {
        if (argc != 2) throw std::invalid_argument("one argument: the size, 0 … 3");
        // One core unless told: a pool's threads cost more to start than a small workload gains.
        const char* threads = std::getenv("LATTICE_SUITE_THREADS");
        lattice::set_thread_count(threads != nullptr ? std::atoi(threads) : 1);
        step(Workload(std::atoi(argv[1])));
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
        return 1;
    }
}

}  // namespace suite
