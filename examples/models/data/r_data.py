"""Reads a data frame of an R package's data base: just enough of R's XDR format for vectors, factors and lists.

`NAME.rdx` is a compressed list that gives the offset and length of each object in `NAME.rdb`; an object is a length,
perhaps a letter for the compression, and the compressed serialisation (R internals, section 1.8).
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

NULL, REFERENCE, SYMBOL, PAIRS, CHARACTERS = 254, 255, 1, 2, 9
LOGICAL, INTEGER, REAL, STRINGS, LIST = 10, 13, 14, 16, 19


class Vector:
    """A value and its attributes."""

    def __init__(self, value: Any, attributes: dict[str, Any]) -> None:
        self.value = value
        self.attributes = attributes

    def named(self) -> dict[str, Any]:
        """A list's entries by name."""
        return dict(zip(self.attributes["names"].value, self.value, strict=True))


def read_frame(base: Path, name: str) -> dict[str, np.ndarray]:
    """Columns by name: integers and reals as float64 with NaN where missing, factors as strings, '' where missing."""
    import gzip

    index = Reader(gzip.decompress(base.with_suffix(".rdx").read_bytes())).item().named()
    offset, length = index["variables"].named()[name].value
    blob = base.with_suffix(".rdb").read_bytes()[offset : offset + length]
    frame = Reader(_decompress(blob)).item()
    return {column: _column(vector) for column, vector in frame.named().items()}


def _decompress(blob: bytes) -> bytes:
    if blob[4:5] == b"2":
        return bz2.decompress(blob[5:])
    if blob[4:5] == b"Z":
        return lzma.decompress(blob[5:], lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])
    return zlib.decompress(blob[4:])


def _column(vector: Vector) -> np.ndarray:
    if "levels" in vector.attributes:
        levels = ["", *vector.attributes["levels"].value]
        return np.array([levels[max(code, 0)] for code in vector.value])
    values = np.asarray(vector.value, dtype=np.float64)
    return np.where(values == np.iinfo(np.int32).min, np.nan, values)


class Reader:
    """One pass over a serialisation."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 2
        self.symbols: list[str] = []
        version = self._integers(3)[0]
        if data[:2] != b"X\n" or version not in (2, 3):
            raise ValueError("not an XDR serialisation of R")
        if version == 3:
            encoding = self._integers(1)[0]
            self.at += encoding

    def _integers(self, count: int) -> tuple[int, ...]:
        found = struct.unpack_from(f">{count}i", self.data, self.at)
        self.at += 4 * count
        return found

    def item(self) -> Any:
        """The next object."""
        flags = self._integers(1)[0]
        kind, attributes, tagged = flags & 255, bool(flags & 512), bool(flags & 1024)
        if kind == NULL:
            return None
        if kind == REFERENCE:
            return self.symbols[(flags >> 8) - 1]
        if kind == SYMBOL:
            self.symbols.append(self.item())
            return self.symbols[-1]
        if kind == PAIRS:
            return self._pairs(attributes, tagged)
        if kind == CHARACTERS:
            return self._characters()
        value = self._vector(kind)
        return Vector(value, self.item() or {}) if attributes else Vector(value, {})

    def _characters(self) -> str:
        length = self._integers(1)[0]
        self.at += max(length, 0)
        return self.data[self.at - length : self.at].decode("utf-8", "replace") if length >= 0 else ""

    def _pairs(self, attributes: bool, tagged: bool) -> dict[str, Any]:
        if attributes:
            self.item()
        name = self.item() if tagged else ""
        return {name: self.item(), **(self.item() or {})}

    def _vector(self, kind: int) -> Any:
        count = self._integers(1)[0]
        if kind in (LOGICAL, INTEGER):
            return self._integers(count)
        if kind == REAL:
            self.at += 8 * count
            return struct.unpack_from(f">{count}d", self.data, self.at - 8 * count)
        if kind in (STRINGS, LIST):
            return [self.item() for _ in range(count)]
        raise ValueError(f"an R object of type {kind} is not read here")
