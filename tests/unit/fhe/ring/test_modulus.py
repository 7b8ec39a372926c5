"""Modular arithmetic against Python integers, at the edges above all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.fhe.ring import modulus
from lattice.fhe.ring.primes import find_primes

PRIMES = (*find_primes(50, 1024, 3), *find_primes(49, 4096, 1), *find_primes(26, 1024, 1), 12289, 17)


@pytest.mark.parametrize("q", PRIMES)
def test_products_are_exact_at_the_edges(q: int) -> None:
    edge = [v % q for v in (0, 1, 2, q - 1, q - 2, q // 2, q // 2 + 1, 1 << 25, (1 << 25) - 1, 3 << 23)]
    rng = np.random.default_rng(q)
    values = np.array(edge + [int(v) for v in rng.integers(0, q, 200)], dtype=np.uint64)
    x, y = (part.ravel()[None] for part in np.meshgrid(values, values))
    got = modulus.mul(x, y, [q])
    assert [int(v) for v in got[0]] == [int(a) * int(b) % q for a, b in zip(x[0], y[0], strict=True)]


@given(st.data())
def test_every_operation_agrees_with_integers(data: st.DataObject) -> None:
    q = data.draw(st.sampled_from(PRIMES))
    residue = st.integers(0, q - 1)
    a, b, c = (data.draw(residue) for _ in range(3))
    x, y, z = (np.array([[v]], dtype=np.uint64) for v in (a, b, c))
    assert modulus.add(x, y, [q])[0, 0] == (a + b) % q
    assert modulus.sub(x, y, [q])[0, 0] == (a - b) % q
    assert modulus.neg(x, [q])[0, 0] == -a % q
    assert modulus.mul_add(z, x, y, [q])[0, 0] == (c + a * b) % q
    scalar = data.draw(st.integers(-(1 << 70), 1 << 70))
    assert modulus.mul_scalar(x, [scalar], [q])[0, 0] == a * scalar % q


@given(st.integers(0, (1 << 50) - 1))
def test_one_factor_may_be_unreduced(x: int) -> None:
    for q in PRIMES:
        got = modulus.mul(np.array([[x]], dtype=np.uint64), np.array([[q - 1]], dtype=np.uint64), [q])
        assert got[0, 0] == x * (q - 1) % q


@given(st.lists(st.integers(-(1 << 62), 1 << 62), min_size=1, max_size=8))
def test_signed_integers_reduce(values: list[int]) -> None:
    got = modulus.reduce_signed(np.array(values, dtype=np.int64), PRIMES)
    assert got.tolist() == [[v % q for v in values] for q in PRIMES]


@pytest.mark.parametrize("q", PRIMES)
def test_centred_values_are_nearest_zero(q: int) -> None:
    x = np.array([0, 1, q // 2, q // 2 + 1, q - 1], dtype=np.uint64)
    assert modulus.centre(x, q).tolist() == [0, 1, q // 2, q // 2 + 1 - q, -1]
