#include "client.hpp"

int main(int argc, char** argv) { return suite::run_step(argc, argv, &suite::write_predictions); }
