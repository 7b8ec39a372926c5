"""Length-prefixed fields: the one binary layout of signed and hashed things, and a strict, bounded reader of it."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from lattice.core.errors import LatticeError

_T = TypeVar("_T")


def pack(*fields: bytes) -> bytes:
    """Join fields, each behind its length as an unsigned 32-bit big-endian number."""
    return b"".join([part for field in fields for part in (len(field).to_bytes(4, "big"), field)])


class FieldReader:
    """Reads hostile bytes field by field; every failure is the one error code it was made with."""

    __slots__ = ("_code", "_data", "_what", "offset")

    def __init__(self, data: bytes, what: str, code: str = "envelope_invalid") -> None:
        self._data = data
        self._what = what
        self._code = code
        self.offset = 0

    def fail(self, reason: str) -> LatticeError:
        """The error to raise; `reason` never quotes the data."""
        return LatticeError(self._code, f"The {self._what} {reason}.")

    def number(self) -> int:
        """The next unsigned 32-bit number."""
        end = self.offset + 4
        if end > len(self._data):
            raise self.fail("is cut short")
        value = int.from_bytes(self._data[self.offset : end], "big")
        self.offset = end
        return value

    def field(self, at_most: int, *, at_least: int = 0) -> bytes:
        """The next length-prefixed field. The length is judged before anything is copied."""
        size = self.number()
        if not at_least <= size <= at_most:
            raise self.fail("has a field of a forbidden length")
        end = self.offset + size
        if end > len(self._data):
            raise self.fail("is cut short")
        value = self._data[self.offset : end]
        self.offset = end
        return value

    def finish(self) -> None:
        """Refuse bytes after the last field."""
        if self.offset != len(self._data):
            raise self.fail("has bytes after its end")


def decode_json(decoder: msgspec.json.Decoder[_T], data: bytes, what: str, code: str = "envelope_invalid") -> _T:
    """Decode JSON of an unknown sender into a typed struct. The error names the thing, and quotes nothing from it."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LatticeError(code, f"The {what} is not valid JSON of version 1.") from None
