"""Seals what the gateway must be able to read again, under a key that only the pepper's file gives."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lattice.core.errors import LatticeError
from lattice.gateway.identity.pepper import Pepper


class SecretBox:
    """AES-256-GCM; a sealed secret opens for its own purpose and owner only. Has no repr that shows anything."""

    def __init__(self, pepper: Pepper) -> None:
        self._aead = AESGCM(pepper.derive(b"lattice sealed secrets v1"))

    def seal(self, secret: str, purpose: str) -> bytes:
        """To bytes for the database."""
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, secret.encode(), purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> str:
        """The secret; `config_invalid` where the pepper is another one."""
        try:
            return self._aead.decrypt(sealed[:12], sealed[12:], purpose.encode()).decode()
        except (InvalidTag, ValueError):
            raise LatticeError("config_invalid", "A stored secret does not open under this pepper.") from None
