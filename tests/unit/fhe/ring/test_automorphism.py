"""Automorphisms: the same in coefficient and NTT form."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ring.automorphism import (
    automorphism_coefficients,
    automorphism_ntt,
    conjugation_element,
    inverse_element,
    rotation_element,
)
from lattice.fhe.ring.ntt import ntt
from lattice.fhe.ring.primes import find_primes
from tests.support.fhe import random_residues

N = 256
MODULI = find_primes(50, N, 2)


@pytest.mark.parametrize("g", [1, 3, 5, 25, 2 * N - 1, rotation_element(-3, N), 77])
def test_both_forms_agree(g: int) -> None:
    x = random_residues(np.random.default_rng(g), MODULI, N)
    moved = automorphism_coefficients(x, g, MODULI)
    assert np.array_equal(ntt(moved, MODULI, N), automorphism_ntt(ntt(x, MODULI, N), g))


def test_elements_compose_as_a_group() -> None:
    assert rotation_element(0, N) == 1
    assert rotation_element(3, N) * rotation_element(-3, N) % (2 * N) == 1
    assert rotation_element(N // 2, N) == 1
    assert conjugation_element(N) ** 2 % (2 * N) == 1
    assert rotation_element(7, N) * inverse_element(rotation_element(7, N), N) % (2 * N) == 1


def test_x_goes_to_x_to_the_g() -> None:
    x = np.zeros((2, N), dtype=np.uint64)
    x[:, 3] = 1
    moved = automorphism_coefficients(x, 101, MODULI)
    at = 3 * 101 % (2 * N)
    assert moved[0, at % N] == (1 if at < N else MODULI[0] - 1)
    assert np.count_nonzero(moved[0]) == 1


@pytest.mark.parametrize("g", [0, 2, -1, 2 * N + 1])
def test_other_numbers_are_no_automorphisms(g: int) -> None:
    with pytest.raises(LatticeError, match="not an odd number"):
        automorphism_ntt(np.zeros((1, N), dtype=np.uint64), g)
