"""Receipts: the runtime's signed word on what it did for one attempt. The ledger settles on them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.frames import MAX_ATTEMPT
from lattice.sealing.header import ModelText
from lattice.sealing.identity import SIGNATURE_BYTES, IdentityKey, PublicIdentity
from lattice.sealing.key_config import IdText, TimeMs
from lattice.sealing.trailer import DigestText, Status, usage_in_range
from lattice.sealing.wire import FieldReader, decode_json, pack

RECEIPT_LABEL = b"lattice receipt v1"
MAX_RECEIPT_BYTES = 4096

HashText = Annotated[str, Meta(min_length=43, max_length=43)]


class Receipt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both hashes are SHA-256 as unpadded base64url; `frames_hash` covers the reply's ciphertext frames in order."""

    version: Literal[1] = 1
    runtime: IdText
    work_id: IdText
    attempt: Annotated[int, Meta(ge=0, le=MAX_ATTEMPT)]
    envelope_hash: HashText
    frames_hash: HashText
    usage: Usage
    model: ModelText
    model_digest: DigestText | None = None
    finished_at_ms: TimeMs
    status: Status = 200


_decoder = msgspec.json.Decoder(Receipt)
_encoder = msgspec.json.Encoder()


class SignedReceipt(msgspec.Struct, frozen=True):
    """A receipt as it travels: its exact JSON, which is what the signature covers, and the signature."""

    receipt: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Two length-prefixed fields."""
        return pack(self.receipt, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> SignedReceipt:
        """Read `encode`'s form strictly; checks no signature."""
        reader = FieldReader(data, "receipt", "receipt_invalid")
        receipt = reader.field(MAX_RECEIPT_BYTES)
        signature = reader.field(SIGNATURE_BYTES, at_least=SIGNATURE_BYTES)
        reader.finish()
        return cls(receipt, signature)


def _decode(data: bytes) -> Receipt:
    receipt = decode_json(_decoder, data, "receipt", "receipt_invalid")
    if not usage_in_range(receipt.usage):
        raise LatticeError("receipt_invalid", "The receipt's usage is out of range.")
    return receipt


def sign_receipt(identity: IdentityKey, receipt: Receipt) -> SignedReceipt:
    """Encode once and sign those bytes, or raise `receipt_invalid` for what no verifier would accept."""
    encoded = _encoder.encode(receipt)
    _decode(encoded)
    return SignedReceipt(encoded, identity.sign(RECEIPT_LABEL, encoded))


def verify_receipt(
    signed: SignedReceipt,
    identity: PublicIdentity,
    *,
    envelope_hash: bytes,
    frames_hash: bytes,
    attempt: int | None,
) -> Receipt:
    """The receipt, if `identity` signed it for this work, these frames and this attempt (None: any of them).

    Raises `receipt_invalid`. The caller still compares `usage` with the sealed trailer's, where it can open that.
    """
    identity.verify(RECEIPT_LABEL, signed.receipt, signed.signature, "receipt_invalid")
    receipt = _decode(signed.receipt)
    if receipt.envelope_hash != b64url(envelope_hash):
        raise LatticeError("receipt_invalid", "The receipt is for other work.")
    if receipt.frames_hash != b64url(frames_hash):
        raise LatticeError("receipt_invalid", "The receipt is for another reply.")
    if attempt is not None and receipt.attempt != attempt:
        raise LatticeError("receipt_invalid", "The receipt is for another attempt.")
    return receipt
