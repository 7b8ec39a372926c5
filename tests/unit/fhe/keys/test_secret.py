"""Nothing shows a secret key, and wiping it leaves nothing."""

from __future__ import annotations

import copy
import pickle
import traceback

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.ntt import NumpyTransforms
from tests.support.fhe import deep, tiny


def test_it_says_whose_it_is_and_nothing_else(secret: SecretKey) -> None:
    for text in (repr(secret), str(secret), f"{secret}", f"{Decryptor(secret)!r}"):
        assert secret.key_id in text
        assert "array" not in text
        assert len(text) < 120
    assert not hasattr(secret, "__dict__")


def test_a_decryption_is_not_shown_either(secret: SecretKey) -> None:
    ciphertext = SecretKeyEncryptor(secret).encrypt_values([1.0])
    for value in (ciphertext, ciphertext.expand(deep()), Decryptor(secret).decrypt(ciphertext)):
        assert "array" not in repr(value)
        assert "[" not in repr(value)


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy, lambda s: s.__getstate__()])
def test_it_is_not_pickled_or_copied(secret: SecretKey, way: object) -> None:
    with pytest.raises(TypeError, match="not pickled or copied"):
        way(secret)  # type: ignore[operator]


def test_wiping_overwrites_every_buffer() -> None:
    key = KeyGenerator(deep()).secret_key()
    buffer = key.coefficients()
    ciphertext = SecretKeyEncryptor(key).encrypt_values([1.0])
    key.ntt(deep().primes(), NumpyTransforms())
    cached = list(key._evaluations.values())
    assert buffer.any()
    assert all(limb.any() for limb in cached)
    key.wipe()
    assert key.wiped
    assert not buffer.any()
    assert not any(limb.any() for limb in cached)
    with pytest.raises(LatticeError) as caught:
        key.coefficients()
    assert caught.value.code == "secret_locked"
    with pytest.raises(LatticeError, match="was wiped"):
        Decryptor(key).values(ciphertext)


def test_leaving_the_block_or_the_scope_wipes() -> None:
    with KeyGenerator(tiny()).secret_key() as key:
        buffer = key.coefficients()
    assert not buffer.any()
    other = KeyGenerator(tiny()).secret_key()
    buffer = other.coefficients()
    del other
    assert not buffer.any()


def test_a_wiped_key_fails_even_with_cached_transforms() -> None:
    key = KeyGenerator(tiny()).secret_key()
    key.ntt(tiny().base, NumpyTransforms())
    key.wipe()
    with pytest.raises(LatticeError, match="was wiped"):
        key.ntt(tiny().base, NumpyTransforms())


@pytest.mark.parametrize(
    "bad",
    [np.zeros(3, dtype=np.int8), np.zeros(64, dtype=np.int64), np.full(64, 2, dtype=np.int8)],
)
def test_what_is_no_secret_polynomial_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(LatticeError, match="does not fit"):
        SecretKey(tiny(), bad)


def test_a_failure_shows_no_coefficients(secret: SecretKey) -> None:
    try:
        SecretKey(deep(), secret.coefficients().astype(np.int8)[:-1])
    except LatticeError:
        text = traceback.format_exc()
    assert "array" not in text
    assert str(secret.coefficients()[:8].tolist())[1:-1] not in text


def test_transforms_are_those_of_the_polynomial(secret: SecretKey) -> None:
    moduli = deep().primes()
    evaluations = secret.ntt(moduli, NumpyTransforms())
    back = NumpyTransforms().intt(evaluations, moduli, deep().n)
    for limb, q in zip(back, moduli, strict=True):
        assert np.array_equal(np.where(limb == q - 1, -1, limb.view(np.int64)), secret.coefficients())
