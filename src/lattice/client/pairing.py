"""Pairing, the minting app's side: make the secret that the gateway never sees, and check the proof made with it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, NamedTuple

from lattice.client.records import PersonalRuntime, decode_key_config
from lattice.client.store import PendingPairing
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.core.origin import origin_of
from lattice.sealing.identity import PublicIdentity
from lattice.sealing.key_config import verify_key_config
from lattice.sealing.pairing import app_key_mac, bootstrap_string, new_pairing_secret, pairing_mac


class Mint(NamedTuple):
    """A pairing being minted: what to remember, and the body of the mint request (which has no secret in it)."""

    pending: PendingPairing
    body: dict[str, Any]

    def __repr__(self) -> str:
        return f"Mint(runtime={self.pending.runtime!r})"


def begin_mint(origin: str, runtime: str, sender: PublicIdentity, now_ms: int) -> Mint:
    """Make a secret and vouch with it for this app's sender key, so that the daemon can put it on its allow-list."""
    secret = new_pairing_secret()
    mac = app_key_mac(secret, origin=origin, runtime=runtime, app_key=sender.raw)
    pending = PendingPairing(origin, runtime, secret, sender.text, now_ms)
    return Mint(pending, {"app_key": sender.text, "app_key_mac": b64url(mac)})


def finish_mint(mint: Mint, answer: Mapping[str, Any]) -> str:
    """The bootstrap string for `lattice-ctl relay connect`: shown once, and never sent to the gateway.

    A gateway that knows itself by another address could never be paired with, so that is said now and not by a wrong
    HMAC later.
    """
    own_origin = answer.get("origin")
    if isinstance(own_origin, str) and origin_of(own_origin) != mint.pending.origin:
        raise LatticeError(
            "config_invalid", f"The gateway calls itself {origin_of(own_origin)}; use that address as the base URL."
        )
    gateway_part = answer.get("token")
    if not isinstance(gateway_part, str) or "." in gateway_part:
        raise LatticeError("gateway_unreachable", "The gateway answered with a malformed bootstrap token.")
    return bootstrap_string(gateway_part, mint.pending.secret)


def proves(record: PersonalRuntime, pending: PendingPairing) -> bool:
    """Whether the machine holds the secret of `pending`: its HMAC covers origin, runtime, identity, key and app key.

    The app key is our own, never the one that the gateway reports.
    """
    proof, identity = record.pairing, record.identity
    if proof is None or identity is None or proof.mac is None or proof.key_config is None:
        return False
    try:
        signed = decode_key_config(proof.key_config)
        verify_key_config(signed, identity, record.id)
        given = unb64url(proof.mac)
    except (LatticeError, ValueError):
        return False
    expected = pairing_mac(
        pending.secret,
        origin=pending.origin,
        runtime=pending.runtime,
        identity_key=identity.raw,
        key_config=signed.encode(),
        app_key=unb64url(pending.app_key),
    )
    return hmac.compare_digest(given, expected)
