"""The layout of the file: a small header with the size and SHA-256 of every section, a signature, the sections.

      0   8  "LATTMODL"
      8   2  version, 1, little-endian
     10   2  zero
     12   4  h, the bytes of the header, little-endian, at most 65,536
     16   h  header: one JSON object, fields in a fixed order, no others
      …  32  content hash: SHA-256 over everything before
      …  32  the publisher's Ed25519 key, or zeros
      …  64  the publisher's signature over the content hash, or zeros
      …      client ‖ report ‖ program ‖ weights, with nothing between and nothing after

The header names every section's digest, so the content hash is over all of them, and each section can be checked and
read without the others. A file that ends after the section `client` is valid too: it is what a client gets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import accumulate
from struct import Struct as Layout
from typing import BinaryIO

import msgspec

from lattice.core.errors import LatticeError
from lattice.fhe.artefact.signing import KEY_BYTES, SIGNATURE_BYTES
from lattice.fhe.hal import program

MAGIC = b"LATTMODL"
VERSION = 1
MAX_HEADER = 1 << 16
LIMITS = {"client": 32 << 20, "report": 16 << 20, "program": program.MAX_BYTES, "weights": 16 << 30}
"""The sections in their order, and the most bytes that each may have."""
MAX_NAME = 200
CHUNK = 1 << 20
_LAYOUT = Layout("<8sHHI")
_SEAL = Layout(f"<32s{KEY_BYTES}s{SIGNATURE_BYTES}s")


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long it is, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model's name, for people, and the sections."""

    name: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Container:
    """A header that was checked, and where its sections begin."""

    header: Header
    content_hash: bytes
    publisher: bytes
    """Raw key; zeros for none."""
    signature: bytes
    starts: dict[str, int]
    has_all: bool
    """False where only the client's section is there."""

    def section(self, name: str) -> Section:
        """By name."""
        return next(section for section in self.header.sections if section.name == name)


def invalid(message: str) -> LatticeError:
    """What this package raises most."""
    return LatticeError("artefact_invalid", message)


def seal_header(header: Header) -> tuple[bytes, bytes]:
    """The bytes up to the content hash, and the content hash."""
    raw = msgspec.json.encode(header)
    if len(raw) > MAX_HEADER:
        raise invalid(f"The header has {len(raw)} bytes and may have {MAX_HEADER}.")
    start = _LAYOUT.pack(MAGIC, VERSION, 0, len(raw)) + raw
    return start, hashlib.sha256(start).digest()


def seal_bytes(content_hash: bytes, publisher: bytes, signature: bytes) -> bytes:
    """What stands between header and sections."""
    return _SEAL.pack(content_hash, publisher, signature)


def read_container(stream: BinaryIO, size: int) -> Container:
    """Read and check what stands before the sections; `size` is what the whole stream has."""
    start = _read(stream, _LAYOUT.size)
    magic, version, zero, head_size = _LAYOUT.unpack(start)
    if magic != MAGIC or zero:
        raise invalid("This is not a compiled model.")
    if version != VERSION:
        raise invalid(f"The file has version {version}; this program reads version {VERSION}.")
    if head_size > MAX_HEADER:
        raise invalid(f"The header claims {head_size} bytes; at most {MAX_HEADER} are read.")
    raw = _read(stream, head_size)
    content_hash, publisher, signature = _SEAL.unpack(_read(stream, _SEAL.size))
    if hashlib.sha256(start + raw).digest() != content_hash:
        raise invalid("The header's checksum is wrong: the file is damaged.")
    header = _read_header(raw)
    ends = list(accumulate((s.size for s in header.sections), initial=_LAYOUT.size + head_size + _SEAL.size))
    if size not in (ends[1], ends[-1]):
        raise invalid(f"The file has {size} bytes and claims to have {ends[-1]}, or {ends[1]} for a client.")
    starts = {section.name: at for section, at in zip(header.sections, ends, strict=False)}
    return Container(header, content_hash, publisher, signature, starts, size == ends[-1])


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise invalid("The file ends too soon.")
    return data


def _read_header(raw: bytes) -> Header:
    try:
        header = msgspec.json.decode(raw, type=Header)
        canonical = msgspec.json.encode(header)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise invalid("The header is malformed.") from None
    if canonical != raw:
        raise invalid("The header is not in its canonical form.")
    if tuple(section.name for section in header.sections) != tuple(LIMITS):
        raise invalid(f"The sections must be {', '.join(LIMITS)}, in this order.")
    for section in header.sections:
        if not 0 < section.size <= LIMITS[section.name]:
            raise invalid(f"The section {section.name} claims {section.size} bytes; at most {LIMITS[section.name]}.")
        if len(section.sha256) != 64 or not set(section.sha256) <= set("0123456789abcdef"):
            raise invalid(f"The digest of the section {section.name} is not a SHA-256 in hexadecimal.")
    check_text(header.name, MAX_NAME)
    return header


def check_text(text: str, limit: int) -> str:
    """Text that may be shown in a terminal: no control characters, of bounded length."""
    if len(text) > limit or not text.isprintable():
        raise invalid(f"A name or label has more than {limit} characters or is not printable.")
    return text


def read_section(stream: BinaryIO, container: Container, name: str) -> memoryview:
    """One section, checked against its digest, in one piece of writable memory."""
    section = _seek(stream, container, name)
    data = memoryview(bytearray(section.size))
    at = 0
    while at < section.size:
        count = stream.readinto(data[at:])  # type: ignore[attr-defined]
        if not count:
            raise invalid("The file ends too soon.")
        at += count
    _check_digest(section, hashlib.sha256(data).hexdigest())
    return data


def check_section(stream: BinaryIO, container: Container, name: str) -> None:
    """Check a section's digest in little memory."""
    section = _seek(stream, container, name)
    digest, left = hashlib.sha256(), section.size
    while left:
        piece = _read(stream, min(CHUNK, left))
        digest.update(piece)
        left -= len(piece)
    _check_digest(section, digest.hexdigest())


def _seek(stream: BinaryIO, container: Container, name: str) -> Section:
    if name != "client" and not container.has_all:
        raise invalid(f"This is the client's part of a compiled model: it has no section {name}.")
    stream.seek(container.starts[name])
    return container.section(name)


def _check_digest(section: Section, found: str) -> None:
    if found != section.sha256:
        raise invalid(f"The section {section.name} does not have the hash that the header names: the file is damaged.")
