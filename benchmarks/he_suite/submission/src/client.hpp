// The client: keys, encryption, decryption. The formulas are those of lattice.fhe.keys; all randomness comes straight
// from the operating system. The harness wants the secret key in a file, so it lies there in the clear.
#pragma once

#include "bundle.hpp"
#include "encoder.hpp"

namespace suite {

// A ternary secret (two bits a coefficient), the keys that the program needs, and a public key. Uniform halves are
// seeds. Every file but the secret begins with the program's identity.
void generate_keys(const Workload& workload);

// Reads the pixels; they are [0, 1] already, and models take them so.
void preprocess(const Workload& workload);

// As many queries as the samples need, each its inputs as seed and packed c0; missing samples are zeros.
void encrypt_features(const Workload& workload);

// [samples, results] doubles: each the mean of the slots that hold it.
void decrypt_scores(const Workload& workload);

// The place of the largest result, one a line.
void write_predictions(const Workload& workload);

}  // namespace suite
