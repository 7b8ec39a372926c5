"""Base conversion and division against big integers; the properties that bit-exactness leans on."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.fhe.ring import rns
from lattice.fhe.ring.automorphism import automorphism_coefficients
from lattice.fhe.ring.modulus import neg
from lattice.fhe.ring.ntt import NumpyTransforms, intt, ntt
from lattice.fhe.ring.primes import find_primes
from tests.support.fhe import random_residues

N = 64
SOURCE = find_primes(50, N, 2) + find_primes(26, N, 1)
TARGET = find_primes(49, N, 2) + find_primes(20, N, 2)


def reference(x: np.ndarray, source: tuple[int, ...], target: tuple[int, ...]) -> list[list[int]]:
    """Σ centred(x_j·(D/d_j)^-1)·(D/d_j) over the integers."""
    total = prod(source)
    out = []
    for k in range(x.shape[-1]):
        value = 0
        for j, d in enumerate(source):
            y = int(x[j, k]) * pow(total // d, -1, d) % d
            value += (y - d if y > d // 2 else y) * (total // d)
        out.append([value % p for p in target])
    return [list(row) for row in zip(*out, strict=True)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_conversion_is_the_centred_sum(count: int) -> None:
    source = SOURCE[:count]
    x = random_residues(np.random.default_rng(count), source, N)
    x[:, 0], x[:, 1] = 0, [d // 2 for d in source]
    assert rns.convert(x, source, TARGET).tolist() == reference(x, source, TARGET)


def test_conversion_commutes_with_sign_and_automorphism() -> None:
    x = random_residues(np.random.default_rng(1), SOURCE, N)
    converted = rns.convert(x, SOURCE, TARGET)
    assert np.array_equal(rns.convert(neg(x, SOURCE), SOURCE, TARGET), neg(converted, TARGET))
    for g in (5, 2 * N - 1):
        moved = rns.convert(automorphism_coefficients(x, g, SOURCE), SOURCE, TARGET)
        assert np.array_equal(moved, automorphism_coefficients(converted, g, TARGET))


def test_conversion_of_one_prime_is_exact_and_centred() -> None:
    (q,) = SOURCE[:1]
    x = random_residues(np.random.default_rng(2), [q], N)
    values = rns.to_integers(x, [q])
    assert rns.convert(x, [q], TARGET).tolist() == rns.from_integers(values, TARGET).tolist()


def test_mod_up_keeps_the_limbs_that_it_has() -> None:
    target = (TARGET[0], SOURCE[1], TARGET[2], SOURCE[0], SOURCE[2])
    x = random_residues(np.random.default_rng(3), SOURCE, N, 2)
    up = rns.mod_up(x, SOURCE, target)
    assert np.array_equal(up[:, [3, 1, 4]], x)
    assert np.array_equal(up[:, [0, 2]], rns.convert(x, SOURCE, (TARGET[0], TARGET[2])))


@pytest.mark.parametrize("dropped", [TARGET[:1], TARGET[:2], TARGET[2:]])
def test_mod_down_divides_and_rounds(dropped: tuple[int, ...]) -> None:
    every = SOURCE + dropped
    x = random_residues(np.random.default_rng(4), every, N)
    down = intt(rns.mod_down(ntt(x, every, N), SOURCE, dropped, NumpyTransforms()), SOURCE, N)
    for value, got in zip(rns.to_integers(x, every), rns.to_integers(down, SOURCE), strict=True):
        exact = Fraction(value, prod(dropped))
        if len(dropped) == 1:
            assert got == round(exact) or abs(exact - got) == Fraction(1, 2)
        assert abs(exact - got) <= Fraction(len(dropped), 2)


@given(st.lists(st.integers(-(prod(SOURCE) // 2), prod(SOURCE) // 2), min_size=1, max_size=9))
def test_integers_survive_the_round_trip(values: list[int]) -> None:
    residues = rns.from_integers(values, SOURCE)
    assert rns.to_integers(residues, SOURCE) == values
    floats = rns.to_floats(residues, SOURCE)
    assert np.allclose(floats, [float(v) for v in values], rtol=2.0**-50, atol=0)


@given(st.lists(st.integers(-(1 << 52), 1 << 52), min_size=1, max_size=9))
def test_small_integers_come_back_exactly(values: list[int]) -> None:
    assert rns.to_floats(rns.from_integers(values, SOURCE), SOURCE).tolist() == values
