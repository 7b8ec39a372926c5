"""The header of sealed work: what gateway and runtime may read. Its exact bytes bind everything else."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lattice.core.clock import DAY_MS
from lattice.core.errors import LatticeError
from lattice.sealing.key_config import IdText, TimeMs
from lattice.sealing.suites import Suite
from lattice.sealing.wire import decode_json

MAX_HEADER_BYTES = 4096
MAX_LIFE_MS = 7 * DAY_MS

Task = Literal["chat", "embeddings"]
ModelText = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{1,256}\Z")]


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Routing metadata in the clear. `sender` is the Ed25519 key that signed the envelope, unpadded base64url."""

    version: Literal[1] = 1
    suite: Suite
    runtime: IdText
    key_id: IdText
    work_id: IdText
    sender: Annotated[str, Meta(min_length=43, max_length=43)]
    issued_at_ms: TimeMs
    expires_at_ms: TimeMs
    model: ModelText
    max_output_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    stream: bool
    task: Task
    minimum_trust: Annotated[int, Meta(ge=0, le=4)] = 0


_decoder = msgspec.json.Decoder(Header)
_encoder = msgspec.json.Encoder()


def encode_header(header: Header) -> bytes:
    """The JSON that is sealed. Made once; from then on only these bytes travel."""
    return _encoder.encode(header)


def decode_header(data: bytes) -> Header:
    """Parse and judge a header of unknown origin, or raise `envelope_invalid`."""
    if len(data) > MAX_HEADER_BYTES:
        raise LatticeError("envelope_invalid", "The header is too long.")
    header = decode_json(_decoder, data, "header")
    if not 0 < header.expires_at_ms - header.issued_at_ms <= MAX_LIFE_MS:
        raise LatticeError("envelope_invalid", "The header's life is empty or longer than seven days.")
    return header
