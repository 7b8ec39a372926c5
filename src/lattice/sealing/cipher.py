"""The frame cipher: AES-256-GCM under a key per direction, with a counter and a final flag in the nonce."""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lattice.core.errors import LatticeError
from lattice.sealing.secret import Secret

REQUEST_LABEL = b"lattice sealed request v1"
REPLY_LABEL = b"lattice sealed reply v1"
TAG_BYTES = 16


def derive_key(work_key: bytes, salt: bytes, label: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) to 32 bytes: one extract and one expand step."""
    pseudo_random_key = hmac.digest(salt, work_key, "sha256")
    return hmac.digest(pseudo_random_key, label + b"\x01", "sha256")


class FrameCipher(Secret):
    """Frames of one direction in order. The nonce is an 11-byte counter and a byte that is 1 on the last frame."""

    __slots__ = ("_aad", "_cipher", "_code", "counter")

    def __init__(self, work_key: bytes, salt: bytes, label: bytes, context: bytes, code: str) -> None:
        self._cipher = AESGCM(derive_key(work_key, salt, label))
        self._aad = label + b"\x00" + context
        self._code = code
        self.counter = 0

    def _nonce(self, final: bool) -> bytes:
        nonce = self.counter.to_bytes(11, "big") + (b"\x01" if final else b"\x00")
        self.counter += 1
        return nonce

    def seal(self, plaintext: bytes, extra: bytes, final: bool) -> bytes:
        """Encrypt the next frame; `extra` joins the AAD."""
        return self._cipher.encrypt(self._nonce(final), plaintext, self._aad + extra)

    def open(self, ciphertext: bytes, extra: bytes, final: bool) -> bytes:
        """Decrypt the next frame. The counter moves even on failure, so a failed stream can't be resumed."""
        try:
            return self._cipher.decrypt(self._nonce(final), ciphertext, self._aad + extra)
        except InvalidTag:
            raise LatticeError(self._code, "A sealed frame does not open in its place.") from None
