"""Encoding: the canonical embedding, exact rounding, equal bits everywhere."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.embedding import to_coefficients, to_slots
from lattice.fhe.ckks.encoder import Encoder, integral_residues
from lattice.fhe.ckks.twiddles import roots_of_unity
from lattice.fhe.ring.automorphism import automorphism_ntt, conjugation_element, rotation_element
from lattice.fhe.ring.modulus import mul
from lattice.fhe.ring.ntt import intt
from lattice.fhe.ring.rns import from_integers, to_integers
from tests.support.fhe import deep, tiny


def random_slots(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(n // 2) + 1j * rng.standard_normal(n // 2)


@pytest.mark.parametrize("n", [4, 8, 16, 32, 256, 1024])
def test_slots_are_evaluations_along_the_orbit_of_five(n: int) -> None:
    slots = random_slots(n)
    coefficients = to_coefficients(slots)
    powers = np.array([pow(5, j, 2 * n) for j in range(n // 2)])
    matrix = np.exp(1j * np.pi * (powers[:, None] * np.arange(n) % (2 * n)) / n)
    assert np.allclose(matrix @ coefficients, slots)
    assert np.allclose(to_slots(coefficients), slots)


def test_a_batch_is_encoded_row_by_row() -> None:
    rows = np.stack([random_slots(1024, seed) for seed in range(3)])
    assert np.array_equal(to_coefficients(rows)[1], to_coefficients(rows[1]))
    assert np.array_equal(to_slots(to_coefficients(rows))[2], to_slots(to_coefficients(rows[2])))


def test_the_twiddles_are_these_and_no_others() -> None:
    real, imaginary = roots_of_unity(1 << 17)
    digest = hashlib.sha256(real.astype("<f8").tobytes() + imaginary.astype("<f8").tobytes()).hexdigest()
    assert digest == "8eb2f68e425a9d0a9d4d71ab3607edf2ec315e253a54c08181e088018fc33d93"


def test_the_twiddles_are_correctly_rounded_and_symmetric() -> None:
    real, imaginary = roots_of_unity(1 << 12)
    angles = 2 * np.pi * np.arange(1 << 12) / (1 << 12)
    assert np.abs(real - np.cos(angles)).max() < 8e-16
    assert np.abs(imaginary - np.sin(angles)).max() < 8e-16
    assert real[512] == imaginary[512] == np.sqrt(0.5)
    assert np.array_equal(real[1:], real[:0:-1])
    assert np.array_equal(imaginary[1:], -imaginary[:0:-1])
    assert np.array_equal(np.roll(real, 1024), imaginary)


def test_the_encoding_of_a_fixed_vector_is_pinned() -> None:
    values = np.arange(4096) / 7.0 - 1j * np.arange(4096) / 11.0
    poly = Encoder(deep()).encode(values).poly
    assert (
        hashlib.sha256(poly.astype("<u8").tobytes()).hexdigest()
        == "c160e9dc8673c5cb2dca14d1d260b34b46debf17cc1f54dcc4a89f43d04bc3cd"
    )


@pytest.mark.parametrize("scale", [1 << 28, 1 << 70, 1 << 120, Fraction(3, 7) * (1 << 40)])
def test_values_survive(scale: int | Fraction) -> None:
    encoder = Encoder(deep())
    slots = random_slots(deep().n)
    plaintext = encoder.encode(slots, scale=scale)
    assert plaintext.scale == scale
    error = np.abs(encoder.decode(plaintext) - slots).max()
    assert error < max(2e-7 * 2**28 / float(scale) * 40, 1e-13)


def test_fewer_values_leave_zeros() -> None:
    encoder = Encoder(deep())
    decoded = encoder.decode_real(encoder.encode([1.5, -2.0, 3.25]))
    assert np.allclose(decoded[:3], [1.5, -2.0, 3.25], atol=1e-5)
    assert np.abs(decoded[3:]).max() < 1e-5
    assert len(encoder.decode(encoder.encode([1.0]), 5)) == 5


def test_a_scalar_fills_every_slot() -> None:
    encoder = Encoder(deep())
    assert np.allclose(encoder.decode_real(encoder.encode(2.5)), 2.5)


@pytest.mark.parametrize("value", [0.0, 0.3, -1.25, 1 / 3 + 2j])
def test_constants_are_rounded_exactly(value: complex) -> None:
    encoder = Encoder(deep())
    plaintext = encoder.encode(value, encoding=Encoding.CONSTANT)
    assert np.allclose(encoder.decode(plaintext), value)
    coefficients = to_integers(intt(plaintext.poly, deep().q_moduli(4), deep().n), deep().q_moduli(4))
    assert coefficients[0] == round(Fraction(complex(value).real) * (1 << 28))
    assert coefficients[deep().n // 2] == round(Fraction(complex(value).imag) * (1 << 28))


def test_a_real_constant_is_one_integer() -> None:
    encoder = Encoder(deep())
    moduli = deep().q_moduli(1)
    assert encoder.constant(-0.5, Fraction(1 << 20), moduli) == tuple(q - (1 << 19) for q in moduli)
    with pytest.raises(LatticeError, match="no scalar"):
        encoder.constant(1j, Fraction(4), moduli)


def test_coefficients_are_rounded_half_to_even() -> None:
    encoder = Encoder(deep())
    plaintext = encoder.encode([0.5, 1.5, -0.5, 2.5], scale=1, encoding=Encoding.COEFFICIENTS, level=0)
    got = to_integers(intt(plaintext.poly, deep().q_moduli(0), deep().n), deep().q_moduli(0))
    assert got[:4] == [0, 2, 0, 2]
    assert encoder.decode_real(plaintext, 4).tolist() == [0, 2, 0, 2]


@given(st.lists(st.floats(-(2.0**130), 2.0**130).map(np.rint), min_size=1, max_size=12))
def test_integers_of_any_size_are_reduced_exactly(values: list[float]) -> None:
    moduli = deep().q_moduli(4)
    got = integral_residues(np.array(values), moduli)
    assert np.array_equal(got, from_integers([int(v) for v in values], moduli))


def test_automorphisms_rotate_and_conjugate_slots() -> None:
    encoder = Encoder(deep())
    slots = random_slots(deep().n)
    poly = encoder.encode(slots).poly
    for steps in (1, 5, -2):
        turned = automorphism_ntt(poly, rotation_element(steps, deep().n))
        assert np.allclose(encoder.decode_poly(turned, 4, deep().scale), np.roll(slots, -steps), atol=1e-5)
    mirrored = automorphism_ntt(poly, conjugation_element(deep().n))
    assert np.allclose(encoder.decode_poly(mirrored, 4, deep().scale), slots.conj(), atol=1e-5)


def test_products_are_slotwise_and_coefficients_convolve() -> None:
    encoder = Encoder(deep())
    x, y = random_slots(deep().n, 1), random_slots(deep().n, 2)
    product = mul(encoder.encode(x).poly, encoder.encode(y).poly, deep().q_moduli(4))
    assert np.allclose(encoder.decode_poly(product, 4, deep().scale ** 2), x * y, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(4097), "room for 4096"),
        ([1.0, float("nan")], "not a number"),
        ([float("inf")], "infinite"),
        (["one"], "not numbers"),
        ([1e30], "the modulus has room"),
    ],
)
def test_what_cannot_be_encoded_is_said(values: object, words: str) -> None:
    with pytest.raises(LatticeError, match=words) as caught:
        Encoder(deep()).encode(values, scale=1 << 90)  # type: ignore[arg-type]
    assert caught.value.code == "values_unencodable"


def test_more_that_cannot_be_encoded() -> None:
    encoder = Encoder(deep())
    for bad in (
        lambda: encoder.encode([1j], encoding=Encoding.COEFFICIENTS),
        lambda: encoder.encode([1.0], scale=1 << 1000),
        lambda: encoder.encode(float("nan"), encoding=Encoding.CONSTANT),
        lambda: encoder.encode(1e300, encoding=Encoding.CONSTANT),
    ):
        with pytest.raises(LatticeError) as caught:
            bad()
        assert caught.value.code == "values_unencodable"


def test_another_ring_cannot_read_it() -> None:
    plaintext = Encoder(deep()).encode([1.0])
    with pytest.raises(LatticeError) as caught:
        Encoder(tiny()).decode(plaintext)
    assert caught.value.code == "parameters_mismatch"


@settings(deadline=None)
@given(st.lists(st.complex_numbers(max_magnitude=100), min_size=1, max_size=32))
def test_any_values_in_a_tiny_ring(values: list[complex]) -> None:
    encoder = Encoder(tiny())
    got = encoder.decode(encoder.encode(values), len(values))
    assert np.allclose(got, values, atol=1e-5)
