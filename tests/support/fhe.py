"""Rings, values and a big-integer reference for tests of the encrypted core."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from lattice.fhe.ckks.parameters import InsecureTestParameters, Parameters, parameters
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.modulus import Residues, reduce_signed
from lattice.fhe.ring.primes import find_primes, root_of_unity


def random_residues(rng: np.random.Generator, moduli: Sequence[int], n: int, *batch: int) -> Residues:
    """Uniform `[*batch, limbs, n]`."""
    limbs = [rng.integers(0, q, (*batch, n), dtype=np.uint64) for q in moduli]
    return np.stack(limbs, axis=-2)


@cache
def tiny(log_n: int = 6) -> InsecureTestParameters:
    """A ring for big-integer checks: a base, three levels (one of two primes) and two special primes."""
    n = 1 << log_n
    base = find_primes(50, n, 1)
    q26 = find_primes(26, n, 2)
    q25, q24 = find_primes(25, n, 1), find_primes(24, n, 1)
    special = find_primes(49, n, 1) + find_primes(30, n, 1)
    return InsecureTestParameters(log_n, base, [(q26[0],), (q25[0], q24[0]), (q26[1],)], special, 1 << 26)


@cache
def small() -> Parameters:
    """The smallest secure parameters with an evaluation key: N = 4096."""
    return parameters(log_n=12, base_bits=36, level_bits=[26], special_bits=[40], scale_bits=26)


@cache
def deep() -> Parameters:
    """N = 8192: a 45-bit base, four levels, one of which has two primes, and a special prime."""
    return parameters(log_n=13, base_bits=45, level_bits=[28, 28, (20, 20), 28], special_bits=[44], scale_bits=28)


def evaluations(secret: SecretKey, moduli: Sequence[int]) -> Residues:
    """s in NTT form, which the client itself never hands out."""
    return ReferenceBackend().ntt(
        reduce_signed(secret.coefficients().astype(np.int64), moduli), moduli, secret.params.n
    )


def slow_ntt(a: Sequence[int], q: int) -> list[int]:
    """The definition: out[bitrev(i)] = Σ_j a_j·ψ^((2i+1)j)."""
    n = len(a)
    bits = n.bit_length() - 1
    psi = root_of_unity(q, n)
    powers = [pow(psi, k, q) for k in range(2 * n)]
    out = [0] * n
    for i in range(n):
        at = int(format(i, f"0{bits}b")[::-1], 2)
        out[at] = sum(int(c) * powers[(2 * i + 1) * j % (2 * n)] for j, c in enumerate(a)) % q
    return out


def negacyclic(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """a·b mod X^N + 1 over the integers."""
    n = len(a)
    out = [0] * n
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            if i + j < n:
                out[i + j] += int(x) * int(y)
            else:
                out[i + j - n] -= int(x) * int(y)
    return out
