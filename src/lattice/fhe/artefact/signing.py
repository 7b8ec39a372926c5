"""The publisher's signature: Ed25519 over the content hash, under a label of its own, and whom a reader trusts.

`lattice.sealing.identity.IdentityKey` is a `Signer`; so is anything that keeps an Ed25519 key in hardware.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lattice.core.errors import LatticeError

LABEL = b"lattice artefact v1"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
UNSIGNED = bytes(KEY_BYTES)
"""In place of a key. (As a key it would be a point of order four, for which anybody can sign.)"""


class Public(Protocol):
    """The public half."""

    @property
    def raw(self) -> bytes:
        """32 bytes."""
        ...


class Signer(Protocol):
    """An Ed25519 key that signs label ‖ 0x00 ‖ message."""

    @property
    def public(self) -> Public:
        """The public half."""
        ...

    def sign(self, label: bytes, message: bytes) -> bytes:
        """64 bytes."""
        ...


def sign(content_hash: bytes, signer: Signer | None) -> tuple[bytes, bytes]:
    """Key and signature, or zeros."""
    if signer is None:
        return UNSIGNED, bytes(SIGNATURE_BYTES)
    return signer.public.raw, signer.sign(LABEL, content_hash)


def verify(content_hash: bytes, publisher: bytes, signature: bytes, trust: Collection[bytes] | None) -> bytes | None:
    """The publisher's key, or None for an unsigned file.

    With `trust`, raw public keys, the file must be signed by one of them; without, a signature must still be right,
    but anybody may have made it.
    """
    if publisher == UNSIGNED:
        if any(signature):
            raise untrusted("The file has a signature and no key that it could be checked with.")
        if trust is not None:
            raise untrusted("The file is not signed.")
        return None
    try:
        Ed25519PublicKey.from_public_bytes(publisher).verify(signature, LABEL + b"\x00" + content_hash)
    except (InvalidSignature, ValueError):
        raise untrusted("The signature does not verify: the file was changed, or somebody else signed it.") from None
    if trust is not None and publisher not in trust:
        raise untrusted("The file is signed, but not by a publisher whom you trust.")
    return publisher


def untrusted(message: str) -> LatticeError:
    """The signature is not what was asked for."""
    return LatticeError("artefact_untrusted", message)
