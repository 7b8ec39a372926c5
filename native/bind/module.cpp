// The Python module lattice.fhe._native: numpy arrays in and out, no copies, the GIL released while it works.
#include "base/cpu.hpp"
#include "base/pool.hpp"
#include "bind/arrays.hpp"

NB_MODULE(_native, m) {
    using namespace lattice;
    using namespace nb::literals;
    // Programs that live as long as the process keep their plans; at its end that is no leak, and not worth a word.
    nb::set_leak_warnings(false);
    m.def("available_isas", [] {
        std::vector<std::string> names;
        for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
        return names;
    });
    m.def("isa", [] { return std::string(isa_name(current_isa())); });
    m.def("set_isa", [](const std::string& name) { set_current_isa(isa_from_name(name)); }, "name"_a);
    m.def("threads", &thread_count);
    m.def("set_threads", &set_thread_count, "count"_a);
    m.def("trim_memory", &trim_buffers);
    m.def("kept_bytes", &buffers_kept_bytes);
    bind_primitives(m);
    bind_switching(m);
    bind_seeds(m);
    bind_secret(m);
    bind_linear(m);
    bind_program(m);
}
