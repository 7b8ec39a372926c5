"""Objects of the wire that somebody has changed on purpose, with a right checksum: only the contents are wrong."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import msgspec

_LAYOUT = struct.Struct("<4sBBHIQ")
_CHECKSUM = 16


def frame(
    data: bytes | memoryview,
    *,
    kind: int | None = None,
    body: Callable[[bytearray], object] | None = None,
    claims: int | None = None,
    **header: Any,
) -> bytes:
    """The frame with members of its header replaced, its body changed in place, another kind, or a false length."""
    data = bytes(data)
    magic, version, was, zero, head_size, _ = _LAYOUT.unpack_from(data)
    members = msgspec.json.decode(data[_LAYOUT.size : _LAYOUT.size + head_size]) | header
    inside = bytearray(data[_LAYOUT.size + head_size : -_CHECKSUM])
    if body is not None:
        body(inside)
    head = msgspec.json.encode(members)
    length = len(inside) if claims is None else claims
    out = _LAYOUT.pack(magic, version, was if kind is None else kind, zero, len(head), length) + head + bytes(inside)
    return out + hashlib.sha256(out).digest()[:_CHECKSUM]


def flipped(data: bytes | memoryview, at: int = -100) -> bytes:
    """One bit is another one, and the checksum stays as it was."""
    out = bytearray(data)
    out[at] ^= 1
    return bytes(out)


def too_large(inside: bytearray) -> None:
    """Residues that no modulus allows."""
    inside[-64:] = b"\xff" * 64
