"""Sums of products with plaintexts on every path, where the kernels could overflow: largest residues, many terms, and
primes on both sides of every limit of the instruction sets."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.hal import composites
from lattice.fhe.hal.native import NativeBackend
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.ring.modulus import Residues
from lattice.fhe.ring.primes import find_primes
from tests.support.encrypted import tiny_parameters

native = pytest.importorskip("lattice.fhe._native")
REFERENCE = ReferenceBackend()
BITS = (14, 20, 25, 26, 27, 28, 29, 30, 31, 32, 33, 40, 48, 49, 50)


@pytest.fixture(params=native.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = native.isa()
    native.set_isa(request.param)
    yield request.param
    native.set_isa(before)


def residues(moduli: tuple[int, ...], *shape: int, seed: int = 0, largest: bool = False) -> Residues:
    rng = np.random.default_rng(seed)
    *lead, n = shape
    out = np.empty((*lead, len(moduli), n), dtype=np.uint64)
    for limb, q in enumerate(moduli):
        size = out[..., limb, :].shape
        out[..., limb, :] = q - 1 if largest else rng.integers(0, q, size, dtype=np.uint64)
    return out


def expected_periodic(xs: list[Residues], weights: Residues, moduli: tuple[int, ...]) -> list[Residues]:
    """By Python's integers, a run at a time: the default would take minutes."""
    stacked = np.stack(xs).astype(object)
    n = xs[0].shape[-1]
    full = np.repeat(weights, n // weights.shape[-1], axis=-1).astype(object)
    q = np.array(moduli, dtype=object)[:, None]
    return [((stacked * row[:, None]).sum(axis=0) % q).astype(np.uint64) for row in full]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("largest", [False, True])
def test_repeating_weights(isa: str, bits: int, largest: bool) -> None:
    """Seven results, so that a tile is not full; 300 inputs, more than 64 bits hold of some primes' products."""
    n = 256
    moduli = find_primes(bits, n, 1)
    xs = [residues(moduli, 2, n, seed=i, largest=largest) for i in range(300)]
    for values in (1, 8):
        weights = residues(moduli, 7, 300, values, seed=values, largest=largest)
        for got, wanted in zip(
            NativeBackend().sum_periodic(xs, weights, moduli), expected_periodic(xs, weights, moduli), strict=True
        ):
            assert np.array_equal(got, wanted)


@pytest.mark.parametrize("bits", [26, 30, 31, 50])
def test_more_terms_than_one_pass_takes(isa: str, bits: int) -> None:
    n = 64
    moduli = find_primes(bits, n, 1)
    x = residues(moduli, 2, n, largest=True)
    weights = residues(moduli, 1, 4500, 2, largest=True)
    (got,) = NativeBackend().sum_periodic([x] * 4500, weights, moduli)
    assert (got == 4500 % moduli[0]).all(), "(−1)·(−1), 4500 times"


@pytest.mark.parametrize("values", [1, 2, 8, 32, 64, 512, 1024])
@pytest.mark.parametrize("components", [2, 3])
def test_every_period(isa: str, values: int, components: int) -> None:
    n = 1024
    moduli = (*find_primes(50, n, 1), *find_primes(26, n, 2), *find_primes(29, n, 1))
    xs = [residues(moduli, components, n, seed=i) for i in range(5)]
    weights = residues(moduli, 9, 5, values, seed=9)
    got = NativeBackend().sum_periodic(xs, weights, moduli)
    wanted = composites.sum_periodic(REFERENCE, xs, weights, moduli)
    assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("largest", [False, True])
def test_plaintexts_in_full(isa: str, bits: int, largest: bool) -> None:
    """270 terms: more than one list of pointers, and more than one reduction; and one, two and three components."""
    n = 512
    moduli = find_primes(bits, n, 1)
    plain = residues(moduli, 30, n, seed=1, largest=largest)
    terms = [[(t % 4, t % 30) for t in range(270)], [(3, 29)], [(0, 1), (1, 2), (2, 3), (3, 4), (0, 5)]]
    for components in (1, 2, 3):
        xs = [residues(moduli, components, n, seed=i, largest=largest) for i in range(4)]
        got = NativeBackend().sum_plain(xs, plain, terms, moduli)
        wanted = composites.sum_plain(REFERENCE, xs, plain, terms, moduli)
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_arrays_that_do_not_fit_are_refused() -> None:
    moduli = find_primes(30, 64, 2)
    x, plain, weights = residues(moduli, 2, 64), residues(moduli, 3, 64), residues(moduli, 2, 1, 4)
    bad = [
        lambda: native.sum_plain([], plain, [], moduli),
        lambda: native.sum_plain([x], plain, [[(1, 0)]], moduli),
        lambda: native.sum_plain([x], plain, [[(0, 3)]], moduli),
        lambda: native.sum_plain([x, x[:1]], plain, [[(0, 0)]], moduli),
        lambda: native.sum_plain([x], plain[:, :1].copy(), [[(0, 0)]], moduli),
        lambda: native.sum_plain([x[0]], plain, [[(0, 0)]], moduli),
        lambda: native.sum_periodic([x, x], weights, moduli),
        lambda: native.sum_periodic([x], weights[0], moduli),
        lambda: native.sum_periodic([x], weights[..., :3].copy(), moduli),
        lambda: native.sum_periodic([x], weights[:, :, :1].copy(), moduli),
        lambda: native.sum_periodic([x], weights, moduli[:1]),
    ]
    for call in bad:
        with pytest.raises(ValueError, match=r"\w"):
            call()


@pytest.mark.parametrize("log_n", [3, 6, 10, 13])
@pytest.mark.parametrize("scale", [2.0**20, 2.0**40, 3.0**30, 2.0**60])
def test_slots_are_encoded_to_the_bits_of_numpy(isa: str, log_n: int, scale: float) -> None:
    """Small coefficients, ones beyond a prime, beyond 2^51, and beyond 2^62, where numpy's way is taken."""
    params = tiny_parameters(log_n, scale_bits=30)
    rng = np.random.default_rng(log_n)
    values = rng.uniform(-1, 1, (5, params.slots)) + 1j * rng.uniform(-1, 1, (5, params.slots))
    values[1] = values[1].real
    values[2] = 0.0
    values[3, 1:] = 0.5
    moduli = params.digit_plan(3).moduli
    for size in (1.0, 2.0**-8, 8.0):
        wanted = Encoder(params).encode_over(values * size, Fraction(scale), moduli)
        assert np.array_equal(
            Encoder(params, NativeBackend()).encode_over(values * size, Fraction(scale), moduli), wanted
        )


def test_values_without_room_are_refused_like_numpy_does() -> None:
    params = tiny_parameters(6)
    for encoder in (Encoder(params), Encoder(params, NativeBackend())):
        with pytest.raises(LatticeError, match="has room for"):
            encoder.encode_over(np.full(32, 2.0**60), Fraction(2**60), params.q_moduli(0))
        with pytest.raises(LatticeError, match="infinite"):
            encoder.encode_over(np.full(32, np.nan), Fraction(2**60), params.q_moduli(0))
