"""The transform against its definition, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.fhe.ring.modulus import mul
from lattice.fhe.ring.ntt import bit_reversal, intt, ntt
from lattice.fhe.ring.primes import find_primes
from tests.support.fhe import negacyclic, random_residues, slow_ntt


@pytest.mark.parametrize("log_n", range(2, 9))
@pytest.mark.parametrize("bits", [20, 50])
def test_it_is_the_definition(log_n: int, bits: int) -> None:
    n = 1 << log_n
    moduli = find_primes(bits, n, 2)
    x = random_residues(np.random.default_rng(log_n), moduli, n)
    got = ntt(x, moduli, n)
    assert got.tolist() == [slow_ntt(x[k].tolist(), q) for k, q in enumerate(moduli)]


@pytest.mark.parametrize("log_n", [1, 2, 3, 10, 11, 14, 16])
def test_the_inverse_undoes_it_with_any_batch(log_n: int) -> None:
    n = 1 << log_n
    moduli = find_primes(49, n, 2)
    x = random_residues(np.random.default_rng(log_n), moduli, n, 2, 3)
    forward = ntt(x, moduli, n)
    assert (forward < np.array(moduli, dtype=np.uint64)[:, None]).all()
    assert np.array_equal(intt(forward, moduli, n), x)
    assert np.array_equal(forward[1, 2], ntt(x[1, 2], moduli, n))


def test_products_of_evaluations_are_negacyclic_products() -> None:
    n = 64
    moduli = find_primes(50, n, 1)
    rng = np.random.default_rng(0)
    a, b = random_residues(rng, moduli, n), random_residues(rng, moduli, n)
    product = intt(mul(ntt(a, moduli, n), ntt(b, moduli, n), moduli), moduli, n)
    assert product[0].tolist() == [v % moduli[0] for v in negacyclic(a[0].tolist(), b[0].tolist())]


def test_inputs_are_left_alone() -> None:
    n = 256
    moduli = find_primes(50, n, 1)
    x = random_residues(np.random.default_rng(0), moduli, n)
    x.flags.writeable = False
    intt(ntt(x, moduli, n), moduli, n)


def test_bit_reversal_is_an_involution() -> None:
    order = bit_reversal(1024)
    assert np.array_equal(order[order], np.arange(1024))
    assert order[1] == 512
