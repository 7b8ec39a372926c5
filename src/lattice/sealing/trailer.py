"""The trailer: how a reply ended, sealed inside its last frame."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.sealing.wire import FieldReader, decode_json, pack

MAX_TOKENS = 2**53 - 1
MAX_TRAILER_BYTES = 4096

DigestText = Annotated[str, Meta(max_length=128)]
Status = Annotated[int, Meta(ge=100, le=599)]


class Trailer(msgspec.Struct, frozen=True, kw_only=True):
    """`ReplySealer` fills in `transcript_hash`: SHA-256 over all payloads in the clear, unpadded base64url."""

    status: Status = 200
    finish_reason: Annotated[str, Meta(max_length=64)] | None = None
    usage: Usage = Usage()
    transcript_hash: str = ""
    model_digest: DigestText | None = None


_decoder = msgspec.json.Decoder(Trailer)
_encoder = msgspec.json.Encoder()


def usage_in_range(usage: Usage) -> bool:
    """Whether both counts are whole numbers that JavaScript can hold too."""
    return 0 <= usage.prompt_tokens <= MAX_TOKENS and 0 <= usage.completion_tokens <= MAX_TOKENS


def join_trailer(trailer: Trailer, payload: bytes) -> bytes:
    """The last frame's plaintext: the trailer's JSON behind its length, then the payload."""
    encoded = _encoder.encode(trailer)
    _decode(encoded)  # what the other side would refuse is refused here
    return pack(encoded) + payload


def split_trailer(plaintext: bytes) -> tuple[Trailer, bytes]:
    """Undo `join_trailer`, or raise `reply_invalid`."""
    reader = FieldReader(plaintext, "reply's last frame", "reply_invalid")
    trailer = _decode(reader.field(MAX_TRAILER_BYTES))
    return trailer, plaintext[reader.offset :]


def _decode(encoded: bytes) -> Trailer:
    trailer = decode_json(_decoder, encoded, "reply's trailer", "reply_invalid")
    if len(encoded) > MAX_TRAILER_BYTES or not usage_in_range(trailer.usage):
        raise LatticeError("reply_invalid", "The reply's trailer is too long or its usage is out of range.")
    return trailer
