"""NTT-friendly primes q ≡ 1 (mod 2N) below 2^50, and their primitive 2N-th roots of unity.

Primality is Miller–Rabin with the first twelve prime bases, which is a proof below 3.3·10^24 (Sorenson & Webster,
"Strong pseudoprimes to twelve prime bases", Math. Comp. 86, 2017); our numbers are below 2^50.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from lattice.core.errors import LatticeError
from lattice.fhe.ring.modulus import PRIME_BITS

_BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
MIN_LOG_N, MAX_LOG_N = 10, 16


@lru_cache(maxsize=65536)
def is_prime(q: int) -> bool:
    """A proof for q below 3.3·10^24."""
    if q < 2 or any(q % p == 0 and q != p for p in _BASES):
        return False
    twos = (q - 1 & -(q - 1)).bit_length() - 1
    return all(_passes(q, base, twos) for base in _BASES if base != q)


def _passes(q: int, base: int, twos: int) -> bool:
    x = pow(base, (q - 1) >> twos, q)
    if x in (1, q - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % q
        if x == q - 1:
            return True
    return False


def is_ntt_prime(q: int, n: int) -> bool:
    """Whether the ring of degree n has an NTT modulo q that every backend can run."""
    return 2 * n < q < 1 << PRIME_BITS and q % (2 * n) == 1 and is_prime(q)


def find_primes(bits: int, n: int, count: int, taken: Collection[int] = ()) -> tuple[int, ...]:
    """The `count` largest primes of exactly `bits` bits that are ≡ 1 mod 2n and not `taken`, largest first."""
    found: list[int] = []
    q = (1 << bits) - 2 * n + 1
    while len(found) < count and q > 1 << (bits - 1):
        if q not in taken and is_ntt_prime(q, n):
            found.append(q)
        q -= 2 * n
    if len(found) < count:
        raise LatticeError(
            "invalid_parameters",
            f"There are {len(found)} unused primes of {bits} bits that are 1 modulo {2 * n}; {count} were asked for.",
        )
    return tuple(found)


@lru_cache(maxsize=4096)
def root_of_unity(q: int, n: int) -> int:
    """ψ: g^((q-1)/2n) mod q for the smallest g ≥ 2 that makes it primitive, that is, whose n-th power is -1."""
    for g in range(2, q):
        psi = pow(g, (q - 1) // (2 * n), q)
        if pow(psi, n, q) == q - 1:
            return psi
    raise LatticeError("invalid_parameters", f"{q} has no primitive root of unity of order {2 * n}.")
