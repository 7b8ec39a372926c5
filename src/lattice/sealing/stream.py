"""The wire of an end-to-end reply, gateway to SDK: records of `type (u8) ‖ length (u32) ‖ payload`."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from lattice.core.errors import LatticeError, error_from_body
from lattice.sealing.frames import MAX_REPLY_FRAME
from lattice.sealing.trailer import MAX_TOKENS

MEDIA_ENVELOPE = "application/vnd.lattice.sealed-work"
MEDIA_REPLY = "application/vnd.lattice.sealed-reply"

_FRAME_PREFIX = 9
MAX_RECORD_BYTES = MAX_REPLY_FRAME + _FRAME_PREFIX
_HEAD = 5


class RecordType(IntEnum):
    """What a record holds."""

    KEEPALIVE = 0
    FRAME = 1
    RECEIPT = 2
    ERROR = 3


_LIMITS = {
    RecordType.KEEPALIVE: 0,
    RecordType.FRAME: MAX_RECORD_BYTES,
    RecordType.RECEIPT: 8192,
    RecordType.ERROR: 256 * 1024,
}


class Record(NamedTuple):
    """One record."""

    type: RecordType
    payload: bytes


class FrameRecord(NamedTuple):
    """The payload of a frame record: what `ReplyOpener.open` takes."""

    frame: bytes
    tokens: int
    final: bool


def encode_record(type: int, payload: bytes = b"") -> bytes:
    """One record; ValueError if it is longer than a reader accepts."""
    if len(payload) > _LIMITS[RecordType(type)]:
        raise ValueError("the record is too long")
    return bytes((type,)) + len(payload).to_bytes(4, "big") + payload


def encode_frame(frame: bytes, tokens: int, final: bool) -> bytes:
    """A frame record: `tokens (u64) ‖ final (u8) ‖ frame`."""
    return encode_record(RecordType.FRAME, tokens.to_bytes(8, "big") + bytes((final,)) + frame)


def decode_frame(payload: bytes) -> FrameRecord:
    """Split a frame record's payload, or raise `reply_invalid`."""
    tokens = int.from_bytes(payload[:8], "big")
    if len(payload) < _FRAME_PREFIX or payload[8] > 1 or tokens > MAX_TOKENS:
        raise LatticeError("reply_invalid", "A frame record is malformed.")
    return FrameRecord(payload[_FRAME_PREFIX:], tokens, payload[8] == 1)


def encode_error(error: LatticeError) -> bytes:
    """An error record: the JSON of `LatticeError.body()`."""
    return encode_record(RecordType.ERROR, msgspec.json.encode(error.body()))


def decode_error(payload: bytes, status: int = 502) -> LatticeError:
    """The error in an error record; `gateway_unreachable` if it makes no sense."""
    try:
        body: Any = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if isinstance(body, dict) and not isinstance(body.get("error"), str):
        body = None
    return error_from_body(status, body)


class RecordReader:
    """Cuts a byte stream into records. Buffers at most one record, and judges its length before buffering it."""

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    @property
    def pending(self) -> int:
        """Bytes of an unfinished record; not zero at the end of the stream means that it was cut."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Record]:
        """The records that `data` completes, or `reply_invalid`."""
        buffer = self._buffer
        buffer += data
        records: list[Record] = []
        offset = 0
        while len(buffer) - offset >= _HEAD:
            kind, size = self._head(buffer, offset)
            end = offset + _HEAD + size
            if end > len(buffer):
                break
            records.append(Record(kind, bytes(buffer[offset + _HEAD : end])))
            offset = end
        if offset:
            del buffer[:offset]
        return records

    def _head(self, buffer: bytearray, offset: int) -> tuple[RecordType, int]:
        kind = buffer[offset]
        size = int.from_bytes(buffer[offset + 1 : offset + _HEAD], "big")
        if kind > RecordType.ERROR or size > min(_LIMITS[RecordType(kind)], self._max_bytes):
            raise LatticeError("reply_invalid", "A record of the reply is of an unknown type or too long.")
        return RecordType(kind), size
