#include <sys/resource.h>

#include <cstdio>

#include "clock.hpp"
#include "server.hpp"

namespace {

// What this process has had of the processors: unlike the others, a figure that does not depend on what else runs.
double processor_ms() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    const auto ms = [](const timeval& t) { return 1e3 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_usec); };
    return ms(used.ru_utime) + ms(used.ru_stime);
}

void compute(const suite::Workload& workload) {
    const suite::Clock all;
    suite::use_memory_once();
    suite::Server server(workload);
    const double model = all.ms();
    server.load_keys(workload);
    const double keys = all.ms();
    server.answer(workload, &suite::random_bytes);
    std::printf("         [server] model %.2f ms, keys %.2f ms, evaluation %.2f ms, blinding %.2f ms, total %.2f ms, "
                "processor %.2f ms, queries %zu\n",
                model, keys - model, server.evaluation_ms(), server.blinding_ms(), all.ms(), processor_ms(),
                server.queries());
}

}  // namespace

int main(int argc, char** argv) { return suite::run_step(argc, argv, &compute); }
