"""From slots to ciphertexts: a circuit gets levels, exact scales, parameters, keys, and predictions of error and time.

`assign` decides levels, `scales` the exact scales, `lower` writes the program, `parameters` finds the smallest secure
primes, `noise` and `cost` predict, `build` does all of it for one circuit.
"""
