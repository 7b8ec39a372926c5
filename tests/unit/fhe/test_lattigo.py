"""Lattigo as an oracle: what one side encrypts the other decrypts, and keys mean the same thing on both sides."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.public_key import public_uniform
from lattice.fhe.hal import backend
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.ring.modulus import Residues
from lattice.fhe.ring.rns import to_integers
from lattice.fhe.serialise.keys import encode_evaluation_keys
from tests.support.lattigo import WHY_SKIPPED, Lattigo

pytest.importorskip("lattigo", reason=WHY_SKIPPED)

VALUES = np.random.default_rng(11).uniform(-1, 1, 4096)


@pytest.fixture(scope="module")
def oracle() -> Lattigo:
    """N = 2^13: 45 + 3·38 bits, P = 49."""
    return Lattigo(13, [45, 38, 38, 38], [49], 38)


@pytest.mark.parametrize("level", [3, 1, 0])
def test_lattigo_decrypts_what_we_encrypt(oracle: Lattigo, level: int) -> None:
    generator = KeyGenerator(oracle.ours)
    secret = generator.secret_key()
    theirs = oracle.secret_key(secret)
    for encryptor in (
        SecretKeyEncryptor(secret),
        PublicKeyEncryptor(oracle.ours, generator.public_key(secret)),
    ):
        made = encryptor.encrypt_values(VALUES, level=level)
        full = made if isinstance(made, Ciphertext) else made.expand(oracle.ours)
        got = oracle.decrypt(oracle.ciphertext(full.components, level), theirs)
        assert np.allclose(got, VALUES, atol=1e-6)


@pytest.mark.parametrize("level", [3, 0])
def test_we_decrypt_what_lattigo_encrypts(oracle: Lattigo, level: int) -> None:
    theirs = oracle.generator.gen_secret_key()
    components = oracle.read_ciphertext(oracle.encrypt(VALUES.tolist(), theirs, level), level)
    secret = oracle.read_secret(theirs)
    got = Decryptor(secret).real_values(Ciphertext(oracle.ours.id, level, oracle.ours.scale, components))
    assert np.allclose(got, VALUES, atol=1e-6)


def test_lattigo_encrypts_under_our_public_key(oracle: Lattigo) -> None:
    generator = KeyGenerator(oracle.ours)
    secret = generator.secret_key()
    key = generator.public_key(secret)
    theirs = oracle.public_key(key.b, public_uniform(oracle.ours, key.seed, 3))
    components = oracle.read_ciphertext(oracle.encrypt_under(VALUES.tolist(), theirs, 3), 3)
    got = Decryptor(secret).real_values(Ciphertext(oracle.ours.id, 3, oracle.ours.scale, components))
    assert np.allclose(got, VALUES, atol=1e-6)


def test_encodings_agree_to_the_last_unit(oracle: Lattigo) -> None:
    moduli = oracle.q
    theirs = oracle.read_plaintext(oracle.encoder.encode(VALUES.tolist(), 3, 1 << 38), 3)
    ours = Encoder(oracle.ours).encode(VALUES, scale=1 << 38).poly
    b = backend()
    first, second = (to_integers(b.intt(x, moduli, oracle.ours.n), moduli) for x in (theirs, ours))
    assert max(abs(x - y) for x, y in zip(first, second, strict=True)) <= 1


def switch(oracle: Lattigo, c: Residues, key: Residues) -> Residues:
    context, b = oracle.ours.key_switch_context(3), backend()
    product = b.gadget_product(b.decompose(c, context), np.ascontiguousarray(key), context)
    return b.mod_down(product, context.q_moduli, context.special)


def test_we_rotate_with_lattigos_keys(oracle: Lattigo) -> None:
    """One prime a digit on both sides, so the gadgets agree and the key can be used as it is."""
    theirs = oracle.generator.gen_secret_key()
    element = KeySpec.rotation(3, 3, oracle.ours).element
    assert oracle.params.galois_element(3) == element
    data = oracle.generator.gen_galois_key(theirs, element).marshal_binary()
    key = oracle.read_switching_key(data, element)
    components = oracle.read_ciphertext(oracle.encrypt(VALUES.tolist(), theirs, 3), 3)
    b = backend()
    moved = b.automorphism_ntt(components, element)
    switched = switch(oracle, np.ascontiguousarray(moved[1]), key)
    rotated = np.stack([b.add(moved[0], switched[0], oracle.q), switched[1]])
    got = oracle.decrypt(oracle.ciphertext(rotated, 3), theirs)
    assert np.allclose(got, np.roll(VALUES, -3), atol=1e-5)


def test_we_relinearise_with_lattigos_keys(oracle: Lattigo) -> None:
    theirs = oracle.generator.gen_secret_key()
    key = oracle.read_switching_key(oracle.generator.gen_relin_key(theirs).marshal_binary(), 0)
    c = oracle.read_ciphertext(oracle.encrypt(VALUES.tolist(), theirs, 3), 3)
    b = backend()
    cross = b.mul_scalar(b.mul(c[0], c[1], oracle.q), [2] * 4, oracle.q)
    switched = switch(oracle, b.mul(c[1], c[1], oracle.q), key)
    square = b.add(np.stack([b.mul(c[0], c[0], oracle.q), cross]), switched, oracle.q)
    got = Decryptor(oracle.read_secret(theirs)).real_values(Ciphertext(oracle.ours.id, 3, oracle.ours.scale**2, square))
    assert np.allclose(got, VALUES**2, atol=1e-5)


def test_our_rotated_and_rescaled_square_decrypts_in_lattigo(oracle: Lattigo) -> None:
    """Our keys, our evaluation, their decryption."""
    p, b = oracle.ours, backend()
    generator = KeyGenerator(p)
    secret = generator.secret_key()
    keys = generator.evaluation_keys(secret, relinearisation=3, rotations=[5])
    c = SecretKeyEncryptor(secret).encrypt_values(VALUES).expand(p).components
    cross = b.mul_scalar(b.mul(c[0], c[1], oracle.q), [2] * 4, oracle.q)
    switched = switch(oracle, b.mul(c[1], c[1], oracle.q), keys.get(0, 3).tensor(p))
    square = b.add(np.stack([b.mul(c[0], c[0], oracle.q), cross]), switched, oracle.q)
    down = b.rescale(square, oracle.q[:3], oracle.q[3:])
    scale = p.scale**2 / oracle.q[3]
    got = oracle.decrypt(oracle.ciphertext(down, 2), oracle.secret_key(secret)) * float(p.scale / scale)
    assert np.allclose(got, VALUES**2, atol=1e-5)
    assert scale != Fraction(p.scale)


def test_our_evaluation_keys_take_at_most_forty_per_cent_of_lattigos_bytes(oracle: Lattigo) -> None:
    generator = KeyGenerator(oracle.ours)
    secret = generator.secret_key()
    ours = len(encode_evaluation_keys(generator.evaluation_keys(secret, rotations=[1])))
    theirs = len(oracle.generator.gen_galois_key(oracle.generator.gen_secret_key(), 5).marshal_binary())
    assert ours <= 0.4 * theirs
