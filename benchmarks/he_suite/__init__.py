"""A submission for HomomorphicEncryption.org's `fhe-benchmarking/ml-inference` harness: see README.md."""
