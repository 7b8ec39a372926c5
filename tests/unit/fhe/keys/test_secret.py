"""Nothing shows a secret key, and wiping it leaves nothing."""

from __future__ import annotations

import copy
import pickle
import traceback
from threading import Thread
from time import sleep

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.numpy_secret import NumpySecret
from lattice.fhe.keys.sampling import SecretSource
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
    twin = KeyGenerator(tiny(), ReferenceBackend()).secret_key().memory
    for holder in (secret, twin, SecretSource(), Decryptor(secret), SecretKeyEncryptor(secret)):
        if way in (pickle.dumps, copy.deepcopy) or isinstance(holder, SecretKey | NumpySecret | SecretSource):
            with pytest.raises(TypeError, match="not pickled or copied"):
                way(holder)  # type: ignore[operator]


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_its_memory_is_not_either(secret: SecretKey, way: object) -> None:
    with pytest.raises(TypeError):
        way(secret.memory)  # type: ignore[operator]
    assert len(repr(secret.memory)) < 40
    assert "array" not in repr(secret.memory)


def test_wiping_overwrites_every_buffer() -> None:
    """Of the numpy twin, whose buffers can be looked at; `tests/hostile` looks at the native ones from outside."""
    key = KeyGenerator(deep(), ReferenceBackend()).secret_key()
    assert isinstance(key.memory, NumpySecret)
    buffer = key.memory._coefficients
    ciphertext = SecretKeyEncryptor(key).encrypt_values([1.0])
    cached = list(key.memory._evaluations.values())
    assert buffer.any()
    assert len(cached) == len(deep().q_moduli(4))
    assert all(limb.any() for limb in cached)
    key.wipe()
    assert key.wiped
    assert not buffer.any()
    assert not any(limb.any() for limb in cached)
    with pytest.raises(LatticeError, match="was wiped"):
        Decryptor(key).values(ciphertext)


@pytest.mark.parametrize("backend", [ReferenceBackend(), find_backend()], ids=["numpy", "default"])
def test_a_wiped_key_does_nothing(backend: Backend) -> None:
    generator = KeyGenerator(deep(), backend)
    key = generator.secret_key()
    memory = key.memory
    ciphertext = SecretKeyEncryptor(key).encrypt_values([1.0])
    key.wipe()
    assert key.wiped
    assert memory.wiped
    for use in (
        key.coefficients,
        lambda: Decryptor(key).values(ciphertext),
        lambda: SecretKeyEncryptor(key).encrypt_values([1.0]),
        lambda: generator.public_key(key),
        lambda: generator.evaluation_key(key, KeySpec.relinearisation(0)),
    ):
        with pytest.raises(LatticeError, match="was wiped") as caught:
            use()
        assert caught.value.code == "secret_locked"
    with pytest.raises(RuntimeError, match="was wiped"):
        memory.decrypt(ciphertext.expand(deep()).components, deep().q_moduli(4))
    key.wipe()


@pytest.mark.parametrize("backend", [ReferenceBackend(), find_backend()], ids=["numpy", "default"])
def test_leaving_the_block_or_the_scope_wipes(backend: Backend) -> None:
    with KeyGenerator(tiny(), backend).secret_key() as key:
        memory = key.memory
    assert memory.wiped
    other = KeyGenerator(tiny(), backend).secret_key()
    memory = other.memory
    del other
    assert memory.wiped


def test_wiping_while_others_use_it_ends_their_use() -> None:
    """No crash, and nothing encrypted under a secret of zeros: a call is served whole or refused."""
    for _ in range(20):
        secret = KeyGenerator(deep()).secret_key()
        encryptor, decryptor = SecretKeyEncryptor(secret), Decryptor(secret)
        plain, made, refused = encryptor.encoder.encode(np.ones(deep().slots)), [], []
        full = encryptor.encrypt(plain).expand(deep())

        def use() -> None:
            try:
                while True:
                    made.append(decryptor.decrypt(full))  # noqa: B023
            except (LatticeError, RuntimeError) as error:
                refused.append(str(error))  # noqa: B023

        threads = [Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(made) < 5:
            sleep(0.0005)
        secret.wipe()
        for thread in threads:
            thread.join()
        assert len(refused) == 3
        assert all("was wiped" in text for text in refused)
        assert all(np.array_equal(plaintext.poly, made[0].poly) for plaintext in made)


def test_an_array_that_is_handed_in_is_copied() -> None:
    mine = np.ones(64, dtype=np.int8)
    with SecretKey(tiny(), mine) as key:
        mine[:] = 0
        assert key.coefficients().all()
        other = key.coefficients()
        other[:] = 0
        assert key.coefficients().all()


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


def test_decrypting_the_unit_gives_the_polynomial(secret: SecretKey) -> None:
    """(0, 1) decrypts to s, so this is what the memory transforms to."""
    moduli, n = deep().primes(), deep().n
    unit = np.zeros((2, len(moduli), n), dtype=np.uint64)
    unit[1] = 1
    back = NumpyTransforms().intt(secret.memory.decrypt(unit, moduli), moduli, n)
    for limb, q in zip(back, moduli, strict=True):
        assert np.array_equal(np.where(limb == q - 1, -1, limb.view(np.int64)), secret.coefficients())
