"""The CKKS scheme without its secrets: parameters as values, security bounds, encoding, typed ciphertexts, digits,
seeds."""
