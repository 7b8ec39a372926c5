"""Lattigo as an oracle of whole circuits, on every backend: it decrypts what our evaluator computed, either way."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lattice.fhe.circuits.evaluator import Evaluator
from lattice.fhe.circuits.polynomial import fit
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey
from tests.support.lattigo import WHY_SKIPPED, Lattigo

pytest.importorskip("lattigo", reason=WHY_SKIPPED)

VALUES = np.random.default_rng(11).uniform(-1, 1, 4096)
MATRIX = np.random.default_rng(12).uniform(-1, 1, (8, 16))
SERIES = fit(lambda x: 1 / (1 + np.exp(-4 * x)), 7)
ROTATIONS = sorted({1, 2, 3, 4, 8, *range(1, 8), 4096 - 8, 16, 4096 - 16})
CLOSE = 2.0**-14


@cache
def oracle() -> Lattigo:
    """N = 2^13: 40 + 4·30 bits, P = 45."""
    return Lattigo(13, [40, 30, 30, 30, 30], [45], 30)


@cache
def ours() -> tuple[SecretKey, EvaluationKeySet]:
    """Our secret and keys."""
    generator = KeyGenerator(oracle().ours, ReferenceBackend())
    secret = generator.secret_key()
    return secret, generator.evaluation_keys(secret, relinearisation=4, rotations=ROTATIONS, conjugation=4)


def circuit(evaluator: Evaluator, x: Ciphertext) -> tuple[list[Ciphertext], list[np.ndarray]]:
    """Results at levels of their own, all brought to the default scale, and what they should hold."""
    first = evaluator.rescale(evaluator.multiply_plain(x, np.arange(4096) < 16))
    matrix = evaluator.prepare_matrix(MATRIX, level=3)
    square = evaluator.rescale(evaluator.square(evaluator.rotate(x, 3)))
    scale = evaluator.params.scale
    results = [
        (evaluator.conjugate(evaluator.rotate(x, 1)), np.roll(VALUES, -1)),
        (evaluator.adjust(square, 2, scale), np.roll(VALUES, -3) ** 2),
        (evaluator.polynomial(x, SERIES), SERIES(VALUES)),
        (evaluator.matrix_vector(matrix, first), np.append(MATRIX @ VALUES[:16], np.zeros(4088))),
        (evaluator.sum_slots(x, 8, radix=4), sum(np.roll(VALUES, -k) for k in range(8))),
    ]
    return [result for result, _ in results], [wanted for _, wanted in results]


def test_lattigo_decrypts_our_circuits_over_our_keys(backend: Backend) -> None:
    secret, keys = ours()
    x = SecretKeyEncryptor(secret, backend).encrypt_values(VALUES).expand(oracle().ours)
    results, wanted = circuit(Evaluator(oracle().ours, keys, backend), x)
    theirs = oracle().secret_key(secret)
    for result, values in zip(results, wanted, strict=True):
        assert result.scale == oracle().ours.scale
        got = oracle().decrypt(oracle().ciphertext(result.components, result.level), theirs)
        assert np.abs(got - values).max() < CLOSE


def test_we_compute_on_what_lattigo_encrypted_and_lattigo_decrypts(backend: Backend) -> None:
    theirs = oracle().generator.gen_secret_key()
    secret = oracle().read_secret(theirs)
    generator = KeyGenerator(oracle().ours, backend)
    keys = generator.evaluation_keys(secret, relinearisation=4, rotations=ROTATIONS, conjugation=4)
    components = oracle().read_ciphertext(oracle().encrypt(VALUES.tolist(), theirs, 4), 4)
    x = Ciphertext(oracle().ours.id, 4, oracle().ours.scale, components)
    results, wanted = circuit(Evaluator(oracle().ours, keys, backend), x)
    for result, values in zip(results, wanted, strict=True):
        got = oracle().decrypt(oracle().ciphertext(result.components, result.level), theirs)
        assert np.abs(got - values).max() < CLOSE
