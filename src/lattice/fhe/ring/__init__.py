"""Polynomial rings R_q = Z_q[X]/(X^N + 1) in residue-number form: primes, NTT, automorphisms, base conversion.

Everything here is exact modular arithmetic on numpy `uint64` tensors `[…, limbs, N]`; limb k belongs to the k-th
prime. It is written to be read: it is the specification that faster backends are compared with, bit for bit. Knows
nothing of encryption. Imports numpy and `lattice.core` only.
"""
