"""Ed25519 identities of runtimes and senders: signatures under a label, key ids and word fingerprints."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.sealing.secret import Secret
from lattice.sealing.words import fingerprint_words

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, _Y8, _P - _Y8})
"""The y coordinates of the eight points of small order, also in the two encodings that are not reduced."""


def _labelled(label: bytes, message: bytes) -> bytes:
    if not label or 0 in label:
        raise ValueError("a signing label is not empty and holds no zero byte")
    return label + b"\x00" + message


class PublicIdentity:
    """The public half of an identity. Equal and hashable by its raw bytes; parsed once, then kept."""

    __slots__ = ("_key", "key_id", "raw", "text")

    raw: bytes
    text: str
    key_id: str

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(raw)
        self.raw = raw
        self.text = b64url(raw)
        self.key_id = hashlib.sha256(raw).hexdigest()[:16]

    @classmethod
    def from_bytes(cls, raw: bytes, code: str = "envelope_invalid") -> PublicIdentity:
        """Parse 32 raw bytes. Keys of small order are refused: anyone can sign for them."""
        raw = bytes(raw)
        if len(raw) != KEY_BYTES or int.from_bytes(raw, "little") & (2**255 - 1) in _SMALL_ORDER:
            raise LatticeError(code, "An identity key is not a usable Ed25519 public key.")
        return _public(raw)

    @classmethod
    def from_text(cls, text: str, code: str = "envelope_invalid") -> PublicIdentity:
        """Parse unpadded base64url."""
        try:
            raw = unb64url(text)
        except ValueError:
            raise LatticeError(code, "An identity key is not unpadded base64url.") from None
        return cls.from_bytes(raw, code)

    @property
    def words(self) -> str:
        """The fingerprint that people compare: six words, 96 bits."""
        return fingerprint_words(self.raw)

    def verify(self, label: bytes, message: bytes, signature: bytes, code: str = "envelope_invalid") -> None:
        """Raise `code` unless `signature` is this identity's over the label and the message."""
        try:
            self._key.verify(signature, _labelled(label, message))
        except InvalidSignature:
            raise LatticeError(code, f"A signature does not verify under the identity key {self.key_id}.") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicIdentity) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicIdentity({self.key_id})"

    def __reduce__(self) -> tuple[type[PublicIdentity], tuple[bytes]]:
        return (PublicIdentity, (self.raw,))


@lru_cache(maxsize=4096)
def _public(raw: bytes) -> PublicIdentity:
    return PublicIdentity(raw)


class IdentityKey(Secret):
    """The private half of an identity. Never printed, never pickled."""

    __slots__ = ("_key", "public")

    public: PublicIdentity

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public = PublicIdentity(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> IdentityKey:
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_bytes(cls, raw: bytes) -> IdentityKey:
        """The key whose 32-byte seed (RFC 8032) is `raw`; ValueError for another length."""
        if len(raw) != KEY_BYTES:
            raise ValueError("an identity key's seed has 32 bytes")
        return cls(bytes(raw))

    def to_bytes(self) -> bytes:
        """The 32-byte seed, for the key store only."""
        return self._key.private_bytes_raw()

    def sign(self, label: bytes, message: bytes) -> bytes:
        """Sign `label ‖ 0x00 ‖ message`. Each use has its own label, so that no signature passes for another's."""
        return self._key.sign(_labelled(label, message))

    def __repr__(self) -> str:
        return f"IdentityKey({self.public.key_id})"
