"""One client with every key, over tiny rings (insecure, loudly) and over real ones: what tests of evaluation need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.fhe.circuits.evaluator import Evaluator
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet, KeySpec
from lattice.fhe.ckks.parameters import InsecureTestParameters, ParameterSet
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.primes import find_primes


@cache
def tiny_parameters(
    log_n: int = 6,
    levels: tuple[tuple[int, ...], ...] = ((36,),) * 6,
    base: tuple[int, ...] = (46,),
    special: tuple[int, ...] = (44, 43),
    scale_bits: int = 36,
) -> InsecureTestParameters:
    """A ring that no attacker would notice; bit sizes as given."""
    taken: list[int] = []

    def find(sizes: Iterable[int]) -> tuple[int, ...]:
        found = []
        for bits in sizes:
            (q,) = find_primes(bits, 1 << log_n, 1, taken)
            taken.append(q)
            found.append(q)
        return tuple(found)

    chain = find(base), tuple(find(group) for group in levels), find(special)
    return InsecureTestParameters(log_n, *chain, scale=1 << scale_bits)


@dataclass
class Client:
    """The side with the secret, in the test's hands."""

    params: ParameterSet
    secret: SecretKey
    keys: EvaluationKeySet

    @classmethod
    def make(cls, params: ParameterSet, specs: Iterable[KeySpec], secret: SecretKey | None = None) -> Client:
        """A fresh secret, and keys on the reference backend."""
        generator = KeyGenerator(params, ReferenceBackend())
        secret = secret or generator.secret_key()
        return cls(params, secret, generator.evaluation_keys(secret, specs))

    def evaluator(self, backend: Backend | None = None) -> Evaluator:
        """An evaluator with this client's keys; on the reference unless said."""
        return Evaluator(self.params, self.keys, backend or ReferenceBackend())

    def encrypt(
        self,
        values: ArrayLike,
        level: int | None = None,
        scale: Fraction | int | None = None,
        encoding: Encoding = Encoding.SLOTS,
    ) -> Ciphertext:
        """A full ciphertext."""
        plain = Encoder(self.params).encode(values, level=level, scale=scale, encoding=encoding)
        return SecretKeyEncryptor(self.secret, ReferenceBackend()).encrypt(plain).expand(self.params)

    def values(self, ciphertext: Ciphertext, count: int | None = None) -> NDArray[np.complex128]:
        """Decrypted."""
        return Decryptor(self.secret, ReferenceBackend()).values(ciphertext, count)

    def error(self, ciphertext: Ciphertext, wanted: Any) -> float:
        """The largest distance of the first slots from what they should hold."""
        expected = np.asarray(wanted)
        return float(np.abs(self.values(ciphertext, len(expected)) - expected).max())


@cache
def tiny_client(params: ParameterSet | None = None) -> Client:
    """Every rotation, conjugation and relinearisation at the top level."""
    params = params or tiny_parameters()
    top = params.max_level
    rotations = [KeySpec.rotation(step, top, params) for step in range(1, params.slots)]
    return Client.make(params, [KeySpec.relinearisation(top), KeySpec.conjugation(top, params), *rotations])


def same_bits(x: Ciphertext, y: Ciphertext) -> bool:
    """Equal in everything, to the last bit."""
    kinds = [(c.params_id, c.level, c.scale, c.encoding, c.components.shape) for c in (x, y)]
    return kinds[0] == kinds[1] and bool(np.array_equal(x.components, y.components))


def noise(shape: int, seed: int = 0) -> NDArray[np.float64]:
    """Values in [−1, 1] that a seed decides."""
    return np.random.default_rng(seed).uniform(-1, 1, shape)
