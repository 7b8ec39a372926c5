"""The client's side of a compiled model: keys, encryption, decryption. The only one of these modules with secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from numpy.typing import ArrayLike

from lattice.fhe.answers import Answer, answer_of, checked_samples, results_of, slots_of
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet, KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.public_key import PublicKey
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.compiler.client_part import ClientPart
from lattice.fhe.hal.program import parse_scale
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey


class ClientFacing(Protocol):
    """What a client is told of a model; a `Compiled` has it, and so has the file that clients get."""

    @property
    def params(self) -> ParameterSet: ...
    @property
    def keys(self) -> tuple[KeySpec, ...]: ...
    @property
    def client(self) -> ClientPart: ...


@dataclass(frozen=True, eq=False)
class ClientKeys:
    """The secret stays with the client; the two others travel."""

    secret: SecretKey
    evaluation: EvaluationKeySet
    public: PublicKey


def client_keys(model: ClientFacing) -> ClientKeys:
    """Exactly the keys that the model needs, after the security bound is recomputed from its primes."""
    generator = KeyGenerator(model.params)
    secret = generator.secret_key()
    keys = [generator.evaluation_key(secret, spec) for spec in model.keys]
    return ClientKeys(secret, EvaluationKeySet(model.params, keys), generator.public_key(secret))


def encrypt(
    part: ClientPart, params: ParameterSet, secret: SecretKey, samples: ArrayLike, *, strict: bool = False
) -> list[SeededCiphertext]:
    """One query: at most `part.batch` samples. Not finite or of the wrong shape is refused; outside the calibrated
    range is warned of (`OutOfRangeWarning`), or refused if `strict`."""
    slots = slots_of(part, checked_samples(part, samples, strict=strict))
    encryptor = SecretKeyEncryptor(secret)
    return [
        encryptor.encrypt_values(values, level=packed.level, scale=parse_scale(packed.scale), encoding=packed.encoding)
        for packed, values in zip(part.inputs, slots, strict=True)
    ]


def decrypt(
    part: ClientPart,
    params: ParameterSet,
    secret: SecretKey,
    ciphertexts: Sequence[Ciphertext],
    count: int | None = None,
) -> Answer:
    """The answer for the first `count` samples of the batch (all unless said). For the key's owner: see `Decryptor`."""
    decryptor = Decryptor(secret)
    decrypted = [decryptor.real_values(ciphertext) for ciphertext in ciphertexts]
    return answer_of(part, results_of(part, decrypted)[:count])
