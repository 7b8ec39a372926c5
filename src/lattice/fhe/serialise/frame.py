"""The container: magic, version, kind, lengths, header, body, checksum.

    0   4  "LFHE"
    4   1  version, 1
    5   1  kind (`Kind`)
    6   2  zero
    8   4  h, the bytes of the header, little-endian, at most 65,536
    12  8  b, the bytes of the body, little-endian
    20  h  header: one JSON object, fields in a fixed order, no others
    …   b  body
    …  16  the first half of SHA-256 over everything before

The checksum finds damage, not malice; who may send what is the business of the layer that carries the bytes. The
declared lengths must add up to what is there, and a decoder knows how long a body must be before it looks at it, so
that nothing is allocated on a stranger's word.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from fractions import Fraction
from struct import Struct as Layout
from typing import TypeVar

import msgspec

from lattice.core.errors import LatticeError

MAGIC = b"LFHE"
VERSION = 1
MAX_HEADER = 1 << 16
CHECKSUM_BYTES = 16
MAX_SCALE_TEXT = 8192
_LAYOUT = Layout("<4sBBHIQ")

Header = TypeVar("Header", bound=msgspec.Struct)


class Kind(IntEnum):
    """What a frame holds."""

    PARAMETERS = 1
    CIPHERTEXT = 2
    SEEDED_CIPHERTEXT = 3
    PUBLIC_KEY = 4
    EVALUATION_KEYS = 5
    SECRET_KEY = 6


def invalid(message: str) -> LatticeError:
    """The one error of this package."""
    return LatticeError("blob_invalid", message)


def write_frame(kind: Kind, header: msgspec.Struct, *body: bytes) -> bytes:
    """Put a frame together."""
    head = msgspec.json.encode(header)
    if len(head) > MAX_HEADER:
        raise invalid(f"The header has {len(head)} bytes and may have {MAX_HEADER}.")
    parts = [_LAYOUT.pack(MAGIC, VERSION, kind, 0, len(head), sum(map(len, body))), head, *body]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()[:CHECKSUM_BYTES]])


def read_frame(data: bytes | memoryview, kind: Kind, header: type[Header]) -> tuple[Header, memoryview]:
    """Check a frame of the expected kind; its typed header and its body, without copying."""
    view = memoryview(data).cast("B")
    if len(view) < _LAYOUT.size + CHECKSUM_BYTES:
        raise invalid(f"{len(view)} bytes are too few for any object.")
    magic, version, found, zero, head_size, body_size = _LAYOUT.unpack_from(view)
    if magic != MAGIC or zero:
        raise invalid("These are not the bytes of a Lattice FHE object.")
    if version != VERSION:
        raise invalid(f"The object has version {version}; this program reads version {VERSION}.")
    if found != kind:
        raise invalid(f"The object is of kind {found}; {kind.name.lower()} ({kind.value}) was expected.")
    total = _LAYOUT.size + head_size + body_size + CHECKSUM_BYTES
    if head_size > MAX_HEADER or total != len(view):
        raise invalid(f"The object has {len(view)} bytes and claims to have {total}.")
    end = len(view) - CHECKSUM_BYTES
    if hashlib.sha256(view[:end]).digest()[:CHECKSUM_BYTES] != view[end:]:
        raise invalid("The checksum is wrong: the object is damaged.")
    body_at = _LAYOUT.size + head_size
    return _read_header(bytes(view[_LAYOUT.size : body_at]), header), view[body_at:end]


def _read_header(raw: bytes, header: type[Header]) -> Header:
    """Strict: the one encoding that `write_frame` makes, so that an object has one form."""
    try:
        out = msgspec.json.decode(raw, type=header)
        canonical = msgspec.json.encode(out)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise invalid("The header is malformed.") from None
    if canonical != raw:
        raise invalid("The header is not in its canonical form.")
    return out


def expect_body(body: memoryview, size: int) -> None:
    """The body has exactly the size that the header and the receiver's own parameters call for."""
    if len(body) != size:
        raise invalid(f"The body has {len(body)} bytes; {size} were expected.")


def write_scale(scale: Fraction) -> str:
    """An exact scale as hexadecimal numerator/denominator."""
    text = f"{scale.numerator:x}/{scale.denominator:x}"
    if len(text) > MAX_SCALE_TEXT:
        raise invalid("The scale has too many digits.")
    return text


def read_scale(text: str) -> Fraction:
    """The only text that `write_scale` gives for it, or `blob_invalid`."""
    try:
        numerator, denominator = text[: MAX_SCALE_TEXT + 1].split("/")
        scale = Fraction(int(numerator, 16), int(denominator, 16))
    except (ValueError, ZeroDivisionError):
        raise invalid("The scale is malformed.") from None
    if scale <= 0 or write_scale(scale) != text:
        raise invalid("The scale is not a positive fraction in lowest terms.")
    return scale
