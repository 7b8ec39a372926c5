"""Request frames: a body cut into pieces of 1 MiB, each sealed in its place."""

from __future__ import annotations

from lattice.core.errors import LatticeError
from lattice.sealing.cipher import REQUEST_LABEL, TAG_BYTES, FrameCipher

FRAME_BYTES = 1024 * 1024
MAX_FRAME_BYTES = FRAME_BYTES + TAG_BYTES


def _cipher(work_key: bytes, header_hash: bytes) -> FrameCipher:
    return FrameCipher(work_key, header_hash, REQUEST_LABEL, header_hash, "envelope_invalid")


def seal_body(work_key: bytes, header_hash: bytes, body: bytes) -> tuple[bytes, ...]:
    """All frames but the last hold exactly `FRAME_BYTES`; an empty body is one empty frame."""
    cipher = _cipher(work_key, header_hash)
    if len(body) <= FRAME_BYTES:
        return (cipher.seal(body, b"", True),)
    starts = range(0, len(body), FRAME_BYTES)
    return tuple(
        cipher.seal(body[start : start + FRAME_BYTES], b"", start + FRAME_BYTES >= len(body)) for start in starts
    )


def open_body(work_key: bytes, header_hash: bytes, frames: tuple[bytes, ...]) -> bytes:
    """The body, or `envelope_invalid` if a frame is missing, moved, added or altered."""
    if not frames:
        raise LatticeError("envelope_invalid", "The sealed work has no frames.")
    cipher = _cipher(work_key, header_hash)
    last = len(frames) - 1
    return b"".join([cipher.open(frame, b"", index == last) for index, frame in enumerate(frames)])
