#include <cstdio>

#include "clock.hpp"
#include "server.hpp"

namespace {

void compute(const suite::Workload& workload) {
    const suite::Clock all;
    suite::use_memory_once();
    suite::Server server(workload);
    const double model = all.ms();
    server.load_keys(workload);
    const double keys = all.ms();
    server.answer(workload, &suite::random_bytes);
    std::printf("         [server] model %.2f ms, keys %.2f ms, evaluation %.2f ms, blinding %.2f ms, total %.2f ms, "
                "queries %zu\n",
                model, keys - model, server.evaluation_ms(), server.blinding_ms(), all.ms(), server.queries());
}

}  // namespace

int main(int argc, char** argv) { return suite::run_step(argc, argv, &compute); }
