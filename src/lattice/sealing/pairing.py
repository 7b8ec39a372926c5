"""Pairing: how a minting client and a daemon authenticate each other through a gateway that neither trusts.

Both know the pairing secret, which is in the bootstrap string and never reaches the gateway. Each proves with an HMAC
under it which keys are its own, over the gateway's canonical origin (`lattice.core.origin`).
"""

from __future__ import annotations

import hmac
import re
import secrets

from lattice.core.errors import LatticeError
from lattice.core.ids import SecretPrefix, b64url, unb64url
from lattice.core.origin import origin_of
from lattice.sealing.wire import pack

APP_KEY_LABEL = b"lattice pairing app key v1"
PAIRING_LABEL = b"lattice pairing runtime v1"
REDEMPTION_LABEL = b"lattice redemption v1"
SECRET_BYTES = 32

_GATEWAY_PART = re.compile(rf"{SecretPrefix.BOOTSTRAP.value}_[A-Za-z0-9_-]{{1,256}}")


def new_pairing_secret() -> str:
    """32 random bytes as unpadded base64url."""
    return b64url(secrets.token_bytes(SECRET_BYTES))


def _secret_bytes(secret: str) -> bytes:
    try:
        raw = unb64url(secret)
    except ValueError:
        raw = b""
    if len(raw) != SECRET_BYTES:
        raise LatticeError("bootstrap_token_invalid", "The pairing secret after the dot is damaged.")
    return raw


def bootstrap_string(gateway_part: str, secret: str) -> str:
    """What a person pastes on the machine: `lbt_….<pairing secret>`. Only this string ever holds both."""
    text = f"{gateway_part}.{secret}"
    if split_bootstrap(text) != (gateway_part, secret):
        raise LatticeError("bootstrap_token_invalid", "The bootstrap token is not of the form `lbt_…`.")
    return text


def split_bootstrap(text: str) -> tuple[str, str | None]:
    """The gateway's part and the pairing secret (None where none was minted), or `bootstrap_token_invalid`."""
    gateway_part, dot, secret = text.strip().partition(".")
    if not _GATEWAY_PART.fullmatch(gateway_part):
        raise LatticeError("bootstrap_token_invalid", "The bootstrap token is not of the form `lbt_…`.")
    if not dot:
        return gateway_part, None
    _secret_bytes(secret)
    return gateway_part, secret


def app_key_mac(secret: str, *, origin: str, runtime: str, app_key: bytes) -> bytes:
    """Made by the minting client, so that the daemon can put the app's key on its allow-list."""
    fields = pack(APP_KEY_LABEL, origin_of(origin).encode(), runtime.encode(), app_key)
    return hmac.digest(_secret_bytes(secret), fields, "sha256")


def pairing_mac(
    secret: str, *, origin: str, runtime: str, identity_key: bytes, key_config: bytes, app_key: bytes
) -> bytes:
    """Made by the daemon over its keys and the app key that it accepted (empty for none); the minting client checks."""
    fields = pack(PAIRING_LABEL, origin_of(origin).encode(), runtime.encode(), identity_key, key_config, app_key)
    return hmac.digest(_secret_bytes(secret), fields, "sha256")


def require_mac(expected: bytes, given: bytes | None) -> None:
    """Raise `pairing_invalid` unless the HMAC is there and right, compared in constant time."""
    if given is None or not hmac.compare_digest(expected, given):
        raise LatticeError("pairing_invalid")


def redemption_proof_message(challenge: bytes, token_hash: bytes, key_config: bytes) -> bytes:
    """What the daemon signs with its identity key, under `REDEMPTION_LABEL`, to prove that it holds that key."""
    return pack(challenge, token_hash, key_config)
