"""Receipts of workers: what was computed on which bytes, in the worker's signed word.

A receipt says which program with which weights turned which ciphertexts under which keys into which results. It proves
who says so, not that it is true: for that a query can run on two workers, whose results must agree bit for bit.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.sealing.identity import SIGNATURE_BYTES, IdentityKey, PublicIdentity
from lattice.sealing.wire import FieldReader, decode_json, pack

WORKER_RECEIPT_LABEL = b"lattice worker receipt v1"
MAX_RECEIPT_BYTES = 4096

Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Id = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_]+\Z")]


class WorkerReceipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hashes are SHA-256 in hex, of the bytes as they travelled; `program` and `weights` are the artefact's sections.

    `keys` and `database` are None where the program needs none. `identity` is the key that signed.
    """

    version: Literal[1] = 1
    query: Id
    attempt: Annotated[int, Meta(ge=0, lt=2**31)]
    identity: Annotated[str, Meta(min_length=43, max_length=43)]
    program: Hash
    weights: Hash
    keys: Hash | None
    inputs: Hash
    database: Hash | None = None
    outputs: Hash
    milliseconds: Annotated[int, Meta(ge=0, lt=2**48)]
    finished_at_ms: Annotated[int, Meta(ge=0, lt=2**53)]


_decoder = msgspec.json.Decoder(WorkerReceipt)


def sign_worker_receipt(identity: IdentityKey, receipt: WorkerReceipt) -> str:
    """The text that travels: the receipt's exact JSON and the signature over it, as unpadded base64url."""
    encoded = msgspec.json.encode(receipt)
    decode_json(_decoder, encoded, "receipt", "receipt_invalid")
    return b64url(pack(encoded, identity.sign(WORKER_RECEIPT_LABEL, encoded)))


def read_worker_receipt(text: str) -> WorkerReceipt:
    """The receipt, if the identity that it names signed it; `receipt_invalid` otherwise.

    The caller compares the hashes with what it sent and got, and the identity with whom it expects.
    """
    if len(text) > 2 * MAX_RECEIPT_BYTES:
        raise LatticeError("receipt_invalid", "The receipt is too long.")
    try:
        data = unb64url(text)
    except (ValueError, UnicodeError):
        raise LatticeError("receipt_invalid", "The receipt is not unpadded base64url.") from None
    reader = FieldReader(data, "receipt", "receipt_invalid")
    encoded = reader.field(MAX_RECEIPT_BYTES)
    signature = reader.field(SIGNATURE_BYTES, at_least=SIGNATURE_BYTES)
    reader.finish()
    receipt = decode_json(_decoder, encoded, "receipt", "receipt_invalid")
    identity = PublicIdentity.from_text(receipt.identity, "receipt_invalid")
    identity.verify(WORKER_RECEIPT_LABEL, encoded, signature, "receipt_invalid")
    return receipt
