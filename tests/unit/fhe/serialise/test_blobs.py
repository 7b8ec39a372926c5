"""Everything that travels comes back as it was, at the size that was promised."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet, KeySpec
from lattice.fhe.ckks.presets import PRESETS, preset
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.serialise.ciphertexts import decode_ciphertext, decode_seeded_ciphertext, encode_ciphertext
from lattice.fhe.serialise.keys import (
    decode_evaluation_keys,
    decode_public_key,
    encode_evaluation_keys,
    encode_public_key,
)
from lattice.fhe.serialise.parameters import decode_parameters, encode_parameters
from tests.support.fhe import deep, small, tiny

P = deep()
GENERATOR = KeyGenerator(P)
SECRET = GENERATOR.secret_key()
OVERHEAD = 400


@pytest.mark.parametrize("name", PRESETS)
def test_parameters(name: str) -> None:
    assert decode_parameters(encode_parameters(preset(name))) == preset(name)


@pytest.mark.parametrize("level", range(5))
def test_seeded_ciphertexts_are_half_the_size(level: int) -> None:
    ciphertext = SecretKeyEncryptor(SECRET).encrypt_values([1.0], level=level, scale=Fraction(1 << 50, 7))
    data = encode_ciphertext(ciphertext, P)
    back = decode_seeded_ciphertext(data, P)
    assert np.array_equal(back.c0, ciphertext.c0)
    assert back.seed == ciphertext.seed
    assert (back.level, back.scale, back.encoding) == (level, Fraction(1 << 50, 7), Encoding.SLOTS)
    bits = sum(q.bit_length() for q in P.q_moduli(level))
    assert P.n * bits // 8 < len(data) < P.n * bits // 8 + OVERHEAD
    full = ciphertext.expand(P)
    whole = encode_ciphertext(full, P)
    assert np.array_equal(decode_ciphertext(whole, P).components, full.components)
    assert 2 * P.n * bits // 8 < len(whole) < 2 * P.n * bits // 8 + OVERHEAD


def test_three_components() -> None:
    full = SecretKeyEncryptor(SECRET).encrypt_values([1.0]).expand(P)
    three = replace(full, components=np.concatenate([full.components, full.components[:1]]))
    assert np.array_equal(decode_ciphertext(encode_ciphertext(three, P), P).components, three.components)


def test_public_keys() -> None:
    key = GENERATOR.public_key(SECRET)
    back = decode_public_key(encode_public_key(key, P), P)
    assert back.seed == key.seed
    assert np.array_equal(back.b, key.b)
    PublicKeyEncryptor(P, back).encrypt_values([1.0])


def test_evaluation_keys_keep_their_hashes() -> None:
    keys = GENERATOR.evaluation_keys(SECRET, relinearisation=3, rotations={1: 4, 7: 0}, conjugation=2)
    data = encode_evaluation_keys(keys)
    back = decode_evaluation_keys(data, P)
    assert back.id == keys.id
    assert [key.hash for key in back] == [key.hash for key in keys]
    assert np.array_equal(back.get(0, 3).tensor(P), keys.get(0, 3).tensor(P))


def test_an_empty_key_set_is_a_key_set() -> None:
    keys = GENERATOR.evaluation_keys(SECRET)
    assert decode_evaluation_keys(encode_evaluation_keys(keys), P).id == keys.id


def test_other_parameters_are_named() -> None:
    data = encode_ciphertext(SecretKeyEncryptor(SECRET).encrypt_values([1.0]), P)
    keys = encode_evaluation_keys(GENERATOR.evaluation_keys(SECRET, [KeySpec.relinearisation(0)]))
    public = encode_public_key(GENERATOR.public_key(SECRET), P)
    for read, blob in (
        (decode_seeded_ciphertext, data),
        (decode_evaluation_keys, keys),
        (decode_public_key, public),
    ):
        with pytest.raises(LatticeError) as caught:
            read(blob, small())
        assert caught.value.code == "parameters_mismatch"


def test_tiny_rings_never_leave_the_process() -> None:
    generator = KeyGenerator(tiny())
    secret = generator.secret_key()
    ciphertext = SecretKeyEncryptor(secret).encrypt_values([1.0])
    for write in (
        lambda: encode_parameters(tiny()),
        lambda: encode_ciphertext(ciphertext, tiny()),
        lambda: encode_public_key(generator.public_key(secret), tiny()),
        lambda: encode_evaluation_keys(generator.evaluation_keys(secret, relinearisation=1)),
    ):
        with pytest.raises(LatticeError, match="never leave"):
            write()


def test_two_keys_with_one_seed_are_refused() -> None:
    keys = list(GENERATOR.evaluation_keys(SECRET, relinearisation=0, conjugation=0))
    forged = EvaluationKeySet(P, [keys[0], replace(keys[1], seed=keys[0].seed)])
    with pytest.raises(LatticeError, match="share a seed"):
        decode_evaluation_keys(encode_evaluation_keys(forged), P)
