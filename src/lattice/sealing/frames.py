"""Reply frames: what the runtime seals back, piece by piece, and what the sender opens in order.

The first frame is `attempt (u32) ‖ salt (32 bytes) ‖ ciphertext`, later ones are ciphertext alone. The last one's
plaintext starts with the trailer. `tokens`, cumulative, travels beside each frame and is authenticated by it.
"""

from __future__ import annotations

import hashlib
import os

import msgspec

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.cipher import REPLY_LABEL, TAG_BYTES, FrameCipher
from lattice.sealing.secret import Secret
from lattice.sealing.trailer import MAX_TOKENS, MAX_TRAILER_BYTES, Trailer, join_trailer, split_trailer, usage_in_range

__all__ = [
    "MAX_ATTEMPT",
    "MAX_REPLY_FRAME",
    "MAX_REPLY_PAYLOAD",
    "MAX_TOKENS",
    "OpenedFrame",
    "ReplyOpener",
    "ReplySealer",
    "Trailer",
]

SALT_BYTES = 32
MAX_ATTEMPT = 2**32 - 1
MAX_REPLY_PAYLOAD = 16 * 1024 * 1024
MAX_REPLY_FRAME = MAX_REPLY_PAYLOAD + MAX_TRAILER_BYTES + 4 + 4 + SALT_BYTES + TAG_BYTES
_PREFIX = 4 + SALT_BYTES


class OpenedFrame(Secret):
    """A frame in the clear; `trailer` only on the last one."""

    __slots__ = ("payload", "trailer")

    def __init__(self, payload: bytes, trailer: Trailer | None) -> None:
        self.payload = payload
        self.trailer = trailer


def _extra(attempt: int, tokens: int) -> bytes:
    return attempt.to_bytes(4, "big") + tokens.to_bytes(8, "big")


class ReplySealer(Secret):
    """The runtime's side of one attempt. A new attempt needs a new sealer, which draws a new salt."""

    __slots__ = ("_cipher", "_frames", "_prefix", "_transcript", "attempt", "finished", "tokens")

    def __init__(self, work_key: bytes, header_hash: bytes, attempt: int, salt: bytes | None = None) -> None:
        if not 0 <= attempt <= MAX_ATTEMPT:
            raise ValueError("an attempt is an unsigned 32-bit number")
        salt = os.urandom(SALT_BYTES) if salt is None else salt
        if len(salt) != SALT_BYTES:
            raise ValueError("a reply's salt has 32 bytes")
        self._cipher = FrameCipher(work_key, salt, REPLY_LABEL, header_hash, "reply_invalid")
        self._prefix = attempt.to_bytes(4, "big") + salt
        self._frames = hashlib.sha256()
        self._transcript = hashlib.sha256()
        self.attempt = attempt
        self.tokens = 0
        self.finished = False

    def seal(self, payload: bytes, tokens: int) -> bytes:
        """The next frame. `tokens` is the count delivered up to and including it, and never falls."""
        if tokens < self.tokens:
            raise ValueError("the cumulative token count fell")
        self._admit(payload, tokens)
        self._transcript.update(payload)
        return self._seal(payload, tokens, final=False)

    def seal_final(self, payload: bytes, trailer: Trailer) -> bytes:
        """The last frame, under the token count `trailer.usage.completion_tokens`, which may correct earlier ones."""
        if not usage_in_range(trailer.usage):
            raise ValueError("the usage is out of range")
        tokens = trailer.usage.completion_tokens
        self._admit(payload, tokens)
        transcript = self._transcript.copy()  # kept clean: a refused trailer must not spoil a second try
        transcript.update(payload)
        trailer = msgspec.structs.replace(trailer, transcript_hash=b64url(transcript.digest()))
        return self._seal(join_trailer(trailer, payload), tokens, final=True)

    def _admit(self, payload: bytes, tokens: int) -> None:
        if self.finished:
            raise ValueError("the reply has ended")
        if len(payload) > MAX_REPLY_PAYLOAD or not 0 <= tokens <= MAX_TOKENS:
            raise ValueError("the payload or the token count is out of range")

    def _seal(self, plaintext: bytes, tokens: int, *, final: bool) -> bytes:
        self.finished = final
        self.tokens = tokens
        frame = self._prefix + self._cipher.seal(plaintext, _extra(self.attempt, tokens), final)
        self._prefix = b""
        self._frames.update(frame)
        return frame

    @property
    def ciphertext_hash(self) -> bytes:
        """SHA-256 over all frames so far, in order: the receipt's `frames_hash`."""
        return self._frames.digest()

    @property
    def transcript(self) -> bytes:
        """The same as `ciphertext_hash`."""
        return self._frames.digest()


class ReplyOpener(Secret):
    """The sender's side of one attempt. After any failure it opens nothing more."""

    __slots__ = (
        "_attempt",
        "_cipher",
        "_failed",
        "_frames",
        "_header_hash",
        "_transcript",
        "_work_key",
        "finished",
        "tokens",
    )

    def __init__(self, work_key: bytes, header_hash: bytes, attempt: int | None = None) -> None:
        self._work_key = work_key
        self._header_hash = header_hash
        self._attempt = attempt
        self._cipher: FrameCipher | None = None
        self._frames = hashlib.sha256()
        self._transcript = hashlib.sha256()
        self._failed = False
        self.tokens = 0
        self.finished = False

    @property
    def attempt(self) -> int | None:
        """The attempt that answers: told at the start, or learnt from the first frame."""
        return self._attempt

    @property
    def ciphertext_hash(self) -> bytes:
        """SHA-256 over all frames so far, in order: what the receipt's `frames_hash` must be."""
        return self._frames.digest()

    def open(self, frame: bytes, tokens: int, final: bool) -> OpenedFrame:
        """Open the next frame, or raise `reply_invalid`: replayed, reordered, altered, miscounted, of another attempt
        or after the end."""
        if self._failed or self.finished:
            raise LatticeError("reply_invalid", "A frame came after the reply had ended or failed.")
        self._failed = True
        opened = self._open(frame, tokens, final)
        self._frames.update(frame)
        self._failed = False
        self.finished = final
        self.tokens = tokens
        return opened

    def require_finished(self) -> None:
        """Raise `reply_invalid` unless the last frame was opened: the only way to tell an end from a cut."""
        if not self.finished:
            raise LatticeError("reply_invalid", "The reply was cut off before its last frame.")

    def _open(self, frame: bytes, tokens: int, final: bool) -> OpenedFrame:
        if len(frame) > MAX_REPLY_FRAME or not 0 <= tokens <= MAX_TOKENS:
            raise LatticeError("reply_invalid", "A frame or its token count is out of range.")
        cipher, ciphertext = self._start(frame) if self._cipher is None else (self._cipher, frame)
        plaintext = cipher.open(ciphertext, _extra(self._attempt or 0, tokens), final)
        if final:
            return self._close(plaintext, tokens)
        if tokens < self.tokens:
            raise LatticeError("reply_invalid", "The cumulative token count fell.")
        self._transcript.update(plaintext)
        return OpenedFrame(plaintext, None)

    def _start(self, frame: bytes) -> tuple[FrameCipher, bytes]:
        if len(frame) < _PREFIX + TAG_BYTES:
            raise LatticeError("reply_invalid", "The first frame is cut short.")
        attempt = int.from_bytes(frame[:4], "big")
        if self._attempt is not None and attempt != self._attempt:
            raise LatticeError("reply_invalid", "The reply is of another attempt.")
        self._attempt = attempt
        self._cipher = FrameCipher(self._work_key, frame[4:_PREFIX], REPLY_LABEL, self._header_hash, "reply_invalid")
        return self._cipher, frame[_PREFIX:]

    def _close(self, plaintext: bytes, tokens: int) -> OpenedFrame:
        trailer, payload = split_trailer(plaintext)
        self._transcript.update(payload)
        if trailer.transcript_hash != b64url(self._transcript.digest()):
            raise LatticeError("reply_invalid", "The reply's transcript hash is wrong.")
        if trailer.usage.completion_tokens != tokens:
            raise LatticeError("reply_invalid", "The reply's usage differs from its token count.")
        return OpenedFrame(payload, trailer)
