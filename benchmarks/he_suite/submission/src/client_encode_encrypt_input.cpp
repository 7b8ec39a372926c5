#include "client.hpp"

int main(int argc, char** argv) { return suite::run_step(argc, argv, &suite::encrypt_features); }
