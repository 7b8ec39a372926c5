"""What a worker computes: bytes in, bytes and a receipt out. Everything is checked before anything is evaluated."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lattice.core.errors import LatticeError
from lattice.core.worker_relay import WorkerWork
from lattice.fhe import artefact
from lattice.fhe.blinding import Blinding
from lattice.fhe.cancel import Cancel
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.public_key import PublicKey
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.serialise.bundle import bundle_bytes, read_bundle, write_pieces
from lattice.fhe.serialise.ciphertexts import decode_ciphertext, decode_seeded_ciphertext, encode_ciphertext
from lattice.fhe.serialise.frame import Kind
from lattice.fhe.serialise.keys import decode_evaluation_keys, decode_public_key
from lattice.fhe.server_side import Prepared, evaluate, prepare
from lattice.sealing.identity import IdentityKey
from lattice.sealing.worker_receipt import WorkerReceipt, sign_worker_receipt

_KIND_AT = 5


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded program."""

    prepared: Prepared
    program_hash: str
    weights_hash: str

    @property
    def params(self) -> ParameterSet:
        """The program's."""
        return self.prepared.params


class UserKeys(NamedTuple):
    """One user's keys, decoded; rotations are expanded at their first use and stay."""

    evaluation: EvaluationKeySet
    public: PublicKey


class Outcome(NamedTuple):
    """What goes back."""

    pieces: tuple[bytes | memoryview, ...]
    receipt: str
    milliseconds: int


def load_model(path: Path) -> Model:
    """Read an artefact, whoever signed it: the gateway named it by its hash. Weights are encoded here, once."""
    found = artefact.inspect(path)
    compiled = artefact.load(path)
    prepared = prepare(compiled)
    return Model(prepared, compiled.program.digest.hex(), found.weights_hash)


def load_keys(path: Path, model: Model) -> tuple[UserKeys, int]:
    """The keys that a user uploaded and the memory that they will take, or a typed error."""
    data = path.read_bytes()
    objects = read_bundle(data, at_most=2)
    if len(objects) != 2:
        raise LatticeError("blob_invalid", "The keys are a bundle of a public key and of evaluation keys.")
    public = decode_public_key(objects[0], model.params)
    keys = decode_evaluation_keys(objects[1], model.params)
    return UserKeys(keys, public), public.b.nbytes + 3 * sum(key.b.nbytes for key in keys)


def check_keys(model: Model, keys: UserKeys) -> None:
    """Keys that were decoded for one program may serve another of the same parameters that needs the same ones."""
    if keys.evaluation.params.id != model.params.id:
        raise LatticeError("parameters_mismatch", "The keys are for other parameters than the program's.")
    for spec in model.prepared.program.checked.keys:
        keys.evaluation.get(spec.element, spec.level)


def decode_inputs(data: bytes, model: Model) -> list[Ciphertext | SeededCiphertext]:
    """The ciphertexts of a bundle; their number and kinds are the program's business."""
    return [_decode(each, model.params) for each in read_bundle(data, at_most=len(model.prepared.program.inputs))]


def _decode(data: memoryview, params: ParameterSet) -> Ciphertext | SeededCiphertext:
    if len(data) > _KIND_AT and data[_KIND_AT] == Kind.SEEDED_CIPHERTEXT:
        return decode_seeded_ciphertext(data, params)
    return decode_ciphertext(data, params)


def check_inputs(model: Model, inputs: list[Ciphertext | SeededCiphertext]) -> None:
    """As many as the program reads, each at the level, the scale and the encoding that it was compiled for."""
    wanted = model.prepared.program.inputs
    if len(inputs) != len(wanted):
        raise LatticeError("circuit_invalid", f"The program takes {len(wanted)} ciphertexts, not {len(inputs)}.")
    for found, entry in zip(inputs, wanted, strict=True):
        if (found.level, found.scale, found.encoding) != (entry.kind.level, entry.kind.scale, entry.kind.encoding):
            raise LatticeError(
                "scale_mismatch", "A ciphertext has another level, scale or encoding than the program's."
            )


def answer(
    model: Model,
    keys: UserKeys,
    work: WorkerWork,
    inputs: bytes,
    database: bytes,
    secret: bytes,
    identity: IdentityKey,
    cancel: Cancel | None = None,
) -> Outcome:
    """Evaluate one query. Equal requests get equal bits from every worker that holds the provider's secret.

    Raises `work_cancelled` where `cancel` was called.
    """
    started = time.monotonic_ns()
    check_keys(model, keys)
    given = decode_inputs(inputs, model) + (decode_inputs(database, model) if database else [])
    check_inputs(model, given)
    asked = f"{model.program_hash} {work.evaluation_keys} {work.inputs} {work.database or ''}"
    blinding = Blinding(secret, hashlib.sha256(asked.encode()).digest())
    results = evaluate(model.prepared, keys.evaluation, keys.public, given, blinding, cancel)
    objects = [encode_ciphertext(result, model.params) for result in results]
    pieces = tuple(write_pieces(objects))
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    assert sum(map(len, pieces)) == bundle_bytes(objects)
    milliseconds = (time.monotonic_ns() - started) // 1_000_000
    receipt = WorkerReceipt(
        query=work.id,
        attempt=work.attempt,
        identity=identity.public.text,
        program=model.program_hash,
        weights=model.weights_hash,
        keys=work.evaluation_keys,
        inputs=work.inputs,
        database=work.database,
        outputs=digest.hexdigest(),
        milliseconds=milliseconds,
        finished_at_ms=time.time_ns() // 1_000_000,
    )
    return Outcome(pieces, sign_worker_receipt(identity, receipt), milliseconds)
