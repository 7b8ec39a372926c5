"""Primes and roots of unity."""

from __future__ import annotations

import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ring.primes import find_primes, is_ntt_prime, is_prime, root_of_unity


def test_primality_of_small_numbers() -> None:
    sieve = [n for n in range(2, 2000) if all(n % d for d in range(2, n))]
    assert [n for n in range(2000) if is_prime(n)] == sieve


@pytest.mark.parametrize("composite", [3215031751, 3474749660383, 341550071728321, 25326001, 1 << 49])
def test_strong_pseudoprimes_are_composite(composite: int) -> None:
    assert not is_prime(composite)


def test_the_largest_primes_come_first_and_are_distinct() -> None:
    found = find_primes(50, 1 << 16, 5)
    assert list(found) == sorted(found, reverse=True)
    assert all(q < 1 << 50 and q % (1 << 17) == 1 and is_prime(q) for q in found)
    assert not any(is_ntt_prime(q, 1 << 16) for q in range(found[0] + (1 << 17), 1 << 50, 1 << 17))
    assert not set(find_primes(50, 1 << 16, 2, taken=found[:2])) & set(found[:2])


def test_running_out_of_primes_is_said() -> None:
    with pytest.raises(LatticeError, match="unused primes of 18 bits") as caught:
        find_primes(18, 1 << 16, 3)
    assert caught.value.code == "invalid_parameters"


@pytest.mark.parametrize("n", [64, 1024, 65536])
def test_the_root_is_primitive_and_from_the_smallest_generator(n: int) -> None:
    (q,) = find_primes(49, n, 1)
    psi = root_of_unity(q, n)
    assert pow(psi, n, q) == q - 1
    candidates = (pow(g, (q - 1) // (2 * n), q) for g in range(2, 1000))
    assert psi == next(c for c in candidates if pow(c, n, q) == q - 1)
