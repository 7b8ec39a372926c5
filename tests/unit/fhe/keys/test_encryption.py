"""Encrypting and decrypting: both kinds of encryption, noise as predicted, sharing only with flooding."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.presets import preset
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.decryptor import Decryptor, flooding_deviation
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.rns import to_integers
from tests.support.fhe import deep, small, tiny

B = ReferenceBackend()


def noise(ciphertext: Ciphertext, values: np.ndarray, secret: SecretKey) -> np.ndarray:
    """The coefficients of decryption minus encoding."""
    p = secret.params
    moduli = p.q_moduli(ciphertext.level)
    plain = Encoder(p).encode(values, level=ciphertext.level, scale=ciphertext.scale)
    difference = B.sub(Decryptor(secret).decrypt(ciphertext).poly, plain.poly, moduli)
    return np.array([float(v) for v in to_integers(B.intt(difference, moduli, p.n), moduli)])


@pytest.mark.parametrize("params", [tiny(), small(), deep(), preset("linear-2048")], ids=lambda p: f"2^{p.log_n}")
def test_values_survive_both_kinds_of_encryption(params: ParameterSet) -> None:
    generator = KeyGenerator(params)
    with generator.secret_key() as secret:
        decryptor = Decryptor(secret)
        public = PublicKeyEncryptor(params, generator.public_key(secret))
        rng = np.random.default_rng(5)
        values = rng.standard_normal(params.slots) + 1j * rng.standard_normal(params.slots)
        for level in range(params.max_level + 1):
            for encryptor in (SecretKeyEncryptor(secret), public):
                ciphertext = encryptor.encrypt_values(values, level=level)
                assert ciphertext.level == level
                tolerance = 0.1 if params.log_n == 11 else 1e-3
                assert np.allclose(decryptor.values(ciphertext), values, atol=tolerance)


def test_secret_key_noise_is_the_error_itself(secret: SecretKey) -> None:
    values = np.zeros(deep().slots)
    got = noise(SecretKeyEncryptor(secret).encrypt_values(values).expand(deep()), values, secret)
    assert np.abs(got).max() <= 21
    assert abs(got.std() - sqrt(10.5)) < 0.2


def test_public_key_noise_is_that_of_rounding(generator: KeyGenerator, secret: SecretKey) -> None:
    p = deep()
    public = PublicKeyEncryptor(p, generator.public_key(secret))
    values = np.linspace(-1, 1, p.slots)
    deviation = noise(public.encrypt_values(values), values, secret).std()
    assert abs(deviation - sqrt((1 + 2 * p.n / 3) / 12)) < 2
    assert deviation * 10 < sqrt(10.5 * (1 + 4 * p.n / 3)), "encrypting over Q alone would have been as good"


def test_two_encryptions_of_one_value_differ(generator: KeyGenerator, secret: SecretKey) -> None:
    first, second = (SecretKeyEncryptor(secret).encrypt_values([1.0]) for _ in range(2))
    assert first.seed != second.seed
    assert not np.array_equal(first.c0, second.c0)
    public = PublicKeyEncryptor(deep(), generator.public_key(secret))
    one = public.encrypt_values([1.0])
    again = public.rerandomise(one)
    assert not np.array_equal(one.components, again.components)
    assert np.allclose(Decryptor(secret).real_values(again, 1), 1.0, atol=1e-3)


def test_ciphertexts_look_uniform(secret: SecretKey) -> None:
    full = SecretKeyEncryptor(secret).encrypt_values(np.ones(deep().slots)).expand(deep())
    for component in full.components:
        for limb, q in zip(component, deep().q_moduli(4), strict=True):
            counts = np.histogram(limb / q, bins=32, range=(0, 1))[0]
            expected = deep().n / 32
            assert ((counts - expected) ** 2 / expected).sum() < 100


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_encoding_travels_along(secret: SecretKey, encoding: Encoding) -> None:
    value = 1.5 if encoding is Encoding.CONSTANT else [1.5, -2.0]
    ciphertext = SecretKeyEncryptor(secret).encrypt_values(value, encoding=encoding)
    assert ciphertext.encoding is encoding
    assert np.allclose(Decryptor(secret).real_values(ciphertext, 1), 1.5, atol=1e-3)


def test_exact_scales_travel_along(secret: SecretKey) -> None:
    scale = Fraction(1 << 60, 3)
    ciphertext = SecretKeyEncryptor(secret).encrypt_values([0.25], scale=scale)
    assert ciphertext.scale == scale
    assert np.allclose(Decryptor(secret).real_values(ciphertext, 1), 0.25, atol=1e-9)


def test_another_secret_decrypts_to_noise(generator: KeyGenerator, secret: SecretKey) -> None:
    ciphertext = SecretKeyEncryptor(secret).encrypt_values(np.ones(deep().slots))
    assert np.abs(Decryptor(generator.secret_key()).values(ciphertext)).max() > 1e6


def test_ciphertexts_of_other_parameters_are_refused(secret: SecretKey) -> None:
    ciphertext = SecretKeyEncryptor(secret).encrypt_values([1.0])
    with KeyGenerator(small()).secret_key() as other, pytest.raises(LatticeError) as caught:
        Decryptor(other).values(ciphertext)
    assert caught.value.code == "parameters_mismatch"
    with pytest.raises(LatticeError):
        Decryptor(secret).values(replace(ciphertext.expand(deep()), level=2))
    with pytest.raises(LatticeError):
        Decryptor(secret).values(replace(ciphertext, c0=ciphertext.c0[1:]))
    with pytest.raises(LatticeError):
        PublicKeyEncryptor(small(), KeyGenerator(deep()).public_key(secret))


def test_three_components_cannot_be_rerandomised(generator: KeyGenerator, secret: SecretKey) -> None:
    public = PublicKeyEncryptor(deep(), generator.public_key(secret))
    full = public.encrypt_values([1.0])
    with pytest.raises(LatticeError, match="three components"):
        public.rerandomise(replace(full, components=np.concatenate([full.components, full.components[:1]])))


def test_sharing_drowns_the_noise_of_the_computation(secret: SecretKey) -> None:
    values = np.linspace(-1, 1, deep().slots)
    ciphertext = SecretKeyEncryptor(secret).encrypt_values(values, scale=1 << 60)
    decryptor = Decryptor(secret)
    bound = 21.0
    shared = decryptor.decrypt_for_sharing(ciphertext, error_bound=bound)
    sigma = flooding_deviation(deep().n, bound, 16, 40)
    slots_deviation = sigma * sqrt(deep().n) / 2**60
    error = shared - values
    assert 0.9 < sqrt((np.abs(error) ** 2).mean()) / slots_deviation < 1.1
    assert not np.array_equal(shared, decryptor.decrypt_for_sharing(ciphertext, error_bound=bound))
    assert len(decryptor.decrypt_for_sharing(ciphertext, error_bound=bound, count=3)) == 3


@pytest.mark.parametrize(("results", "bits"), [(1, 30), (16, 40), (1000, 64)])
def test_flooding_drowns_the_worst_error_of_all_coefficients_together(results: int, bits: int) -> None:
    """A bug once left out √N: an error of B in every coefficient is one of √N·B, and then log2(N) bits were missing."""
    for n in (1 << 11, 1 << 16):
        sigma = flooding_deviation(n, 21.0, results, bits)
        worst = np.full(n, 21.0)
        divergence = results * float(worst @ worst) / (2 * sigma**2)
        assert divergence == pytest.approx(2.0**-bits / 24)


def test_sharing_needs_room(secret: SecretKey) -> None:
    ciphertext = SecretKeyEncryptor(secret).encrypt_values([1.0], level=0)
    with pytest.raises(LatticeError, match=r"deviation of 2\^34\.7; the scale is 2\^28") as caught:
        Decryptor(secret).decrypt_for_sharing(ciphertext, error_bound=21)
    assert caught.value.code == "level_exhausted"
    for bad in ({"error_bound": 0.0}, {"error_bound": float("nan")}, {"error_bound": 1.0, "shared_results": 0}):
        with pytest.raises(LatticeError, match="must be positive"):
            Decryptor(secret).decrypt_for_sharing(ciphertext, **bad)  # type: ignore[arg-type]
