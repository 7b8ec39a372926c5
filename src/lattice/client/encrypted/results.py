"""What an encrypted query is on its way out and on its way back, and whether its receipt fits."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from lattice.core.errors import LatticeError
from lattice.sealing.worker_receipt import WorkerReceipt, read_worker_receipt

if TYPE_CHECKING:
    from lattice.fhe.artefact.client import ClientView


class EncryptedQuery(msgspec.Struct, frozen=True):
    """A bundle of ciphertexts of `count` samples, made for a version of the model."""

    data: bytes
    count: int
    version: int | None = None

    @property
    def sha256(self) -> str:
        """Of the bundle."""
        return hashlib.sha256(self.data).hexdigest()

    def __repr__(self) -> str:
        return f"EncryptedQuery({self.count} samples, {len(self.data)} bytes)"


class EncryptedResult(msgspec.Struct, frozen=True):
    """A bundle of result ciphertexts, with the worker's verified receipt and the gateway's timings in milliseconds.

    `version` is that of the model which computed it.
    """

    data: bytes
    count: int
    query_id: str
    receipt: WorkerReceipt
    timings: dict[str, float] = {}
    version: int | None = None

    def __repr__(self) -> str:
        return f"EncryptedResult({self.query_id}, {self.count} samples, {len(self.data)} bytes)"


class Expected(msgspec.Struct, frozen=True):
    """What a receipt has to say."""

    view: Any
    weights: str
    keys: str | None
    inputs: str
    identities: frozenset[str] | None = None


def verified(text: str | None, data: bytes, expected: Expected) -> WorkerReceipt:
    """The receipt if it is about exactly this question and this answer; `receipt_invalid` otherwise."""
    if not text:
        raise LatticeError("receipt_invalid", "The answer came without a receipt.")
    receipt = read_worker_receipt(text)
    view: ClientView = expected.view
    found = (f"prg_{receipt.program[:32]}", receipt.weights, receipt.inputs, receipt.outputs)
    if found != (view.program_id, expected.weights, expected.inputs, hashlib.sha256(data).hexdigest()):
        raise LatticeError("receipt_invalid", "The receipt is about another program, question or answer.")
    if receipt.keys != expected.keys:
        raise LatticeError("receipt_invalid", "The receipt is about other keys.")
    if expected.identities is not None and receipt.identity not in expected.identities:
        raise LatticeError("receipt_invalid", "The receipt was signed by a worker that this client does not know.")
    return receipt


def timings_of(header: str | None) -> dict[str, float]:
    """`Server-Timing` as {name: milliseconds}; what cannot be read is left out."""
    found = {}
    for entry in (header or "").split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.lower() == "dur" and value.replace(".", "", 1).isdigit():
                found[name] = float(value)
    return found
