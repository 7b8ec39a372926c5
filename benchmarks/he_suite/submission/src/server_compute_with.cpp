// For tests: as server_encrypted_compute, but the bytes that blind come from the file LATTICE_SUITE_BLINDING.
#include <cstdlib>
#include <stdexcept>

#include "bits.hpp"
#include "server.hpp"

namespace {

void compute(const suite::Workload& workload) {
    const char* path = std::getenv("LATTICE_SUITE_BLINDING");
    if (path == nullptr) throw std::runtime_error("LATTICE_SUITE_BLINDING names no file");
    const suite::MappedFile file(path);
    suite::Bytes left = file.bytes();
    const auto source = [&](const suite::Scheme& scheme, std::size_t output) {
        suite::BlindingBytes sizes = suite::random_bytes(scheme, output);
        for (auto* bytes : {&sizes.ephemeral, &sizes.first_error, &sizes.second_error, &sizes.noise}) {
            const suite::Bytes found = suite::take(left, bytes->size());
            bytes->assign(found.begin(), found.end());
        }
        return sizes;
    };
    suite::Server server(workload);
    server.load_keys(workload);
    server.answer(workload, source);
}

}  // namespace

int main(int argc, char** argv) { return suite::run_step(argc, argv, &compute); }
