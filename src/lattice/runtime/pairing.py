"""Pairing: redeem a bootstrap string, so that gateway, minting app and machine know each other's keys."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

import aiohttp
import msgspec

from lattice.core.clock import Clock, SystemClock
from lattice.core.errors import LatticeError, error_from_body
from lattice.core.ids import b64url, unb64url
from lattice.core.origin import origin_of
from lattice.runtime.allow import AllowList
from lattice.runtime.http import TooLarge, finish, read_bounded, require_safe_url
from lattice.runtime.machine import Pairing, load_or_create_identity, save_pairing
from lattice.runtime.state import StateDir
from lattice.runtime.work_keys import WorkKeys
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.pairing import (
    REDEMPTION_LABEL,
    app_key_mac,
    pairing_mac,
    redemption_proof_message,
    require_mac,
    split_bootstrap,
)

T = TypeVar("T")

REDEEM_PATH = "/v1/personal-runtime-bootstrap-redemptions"
_MAX_ANSWER = 256 * 1024


class _Challenge(msgspec.Struct):
    runtime: str
    origin: str
    challenge: str
    gateway_key: str
    app_key: str | None = None
    app_key_mac: str | None = None


class _Redeemed(msgspec.Struct):
    runtime: str
    credential: str
    gateway_key: str
    relay_url: str


async def redeem(
    gateway_url: str,
    bootstrap: str,
    state: StateDir,
    *,
    name: str | None = None,
    allow_plain_http: bool = False,
    clock: Clock | None = None,
) -> Pairing:
    """Pair this machine. Safe to repeat with the same string after a crash: the identity key is saved first.

    Raises `pairing_invalid` if a secret was minted and the gateway's answer does not prove the app's key with it.
    """
    clock = clock or SystemClock()
    url = require_safe_url(gateway_url, allow_plain_http) + REDEEM_PATH
    token, secret = split_bootstrap(bootstrap)
    identity = load_or_create_identity(state)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        opening = {"token": token, "identity_key": identity.public.text}
        challenge = await _post(session, url, opening, _Challenge)
        app_key = _check(challenge, gateway_url, secret)
        keys = WorkKeys(state, identity, challenge.runtime, clock)
        closing = _closing(challenge, token, secret, identity, keys.announcement[0], app_key)
        # Without a name the record keeps the one that it was created with; a host name would be nobody's business.
        redeemed = await _post(session, url, {**closing, **({"name": name} if name else {})}, _Redeemed)
    if redeemed.runtime != challenge.runtime or redeemed.gateway_key != challenge.gateway_key:
        raise LatticeError("pairing_invalid", "The gateway changed its answer between the two calls.")
    _remember_senders(AllowList(state), challenge, app_key, clock.now_ms())
    pairing = Pairing(
        runtime=redeemed.runtime,
        origin=challenge.origin,
        relay_url=_relay_url(redeemed.relay_url, gateway_url, allow_plain_http),
        credential=redeemed.credential,
        gateway_key=redeemed.gateway_key,
        paired_at_ms=clock.now_ms(),
        verified=secret is not None,
        name=name,
    )
    save_pairing(state, pairing)
    return pairing


def _check(challenge: _Challenge, gateway_url: str, secret: str | None) -> bytes | None:
    """The app key to trust, None where nobody vouches for one. The HMACs cover the origin, so it must be right."""
    PublicIdentity.from_text(challenge.gateway_key, "pairing_invalid")
    if origin_of(challenge.origin) != origin_of(gateway_url):
        message = f"The gateway calls itself {challenge.origin}, and you gave another address. Use that one."
        raise LatticeError("pairing_invalid", message)
    if secret is None:
        return None  # whatever app key the gateway names, nobody vouches for it
    if challenge.app_key is None:
        raise LatticeError("pairing_invalid", "The gateway withheld the app's key.")
    app_key = PublicIdentity.from_text(challenge.app_key, "pairing_invalid").raw
    expected = app_key_mac(secret, origin=challenge.origin, runtime=challenge.runtime, app_key=app_key)
    require_mac(expected, _bytes(challenge.app_key_mac))
    return app_key


def _closing(
    challenge: _Challenge,
    token: str,
    secret: str | None,
    identity: IdentityKey,
    key_config: bytes,
    app_key: bytes | None,
) -> dict[str, Any]:
    raw_challenge = _bytes(challenge.challenge)
    if raw_challenge is None:
        raise LatticeError("pairing_invalid", "The gateway's challenge is damaged.")
    token_hash = hashlib.sha256(token.encode()).digest()
    proof = identity.sign(REDEMPTION_LABEL, redemption_proof_message(raw_challenge, token_hash, key_config))
    mac = None
    if secret is not None:
        mac = pairing_mac(
            secret,
            origin=challenge.origin,
            runtime=challenge.runtime,
            identity_key=identity.public.raw,
            key_config=key_config,
            app_key=app_key or b"",
        )
    return {
        "token": token,
        "identity_key": identity.public.text,
        "challenge": challenge.challenge,
        "proof": b64url(proof),
        "key_config": b64url(key_config),
        "mac": b64url(mac) if mac is not None else None,
    }


def _remember_senders(allow: AllowList, challenge: _Challenge, app_key: bytes | None, now_ms: int) -> None:
    allow.replace_gateway(challenge.gateway_key, f"gateway {challenge.origin}", now_ms)
    if app_key is not None:
        allow.add(b64url(app_key), "app that paired this machine", "app", now_ms)


def _relay_url(answered: str, gateway_url: str, allow_plain_http: bool) -> str:
    """The relay's address; a path alone is on the gateway itself."""
    if answered.startswith("/"):
        return gateway_url.rstrip("/") + answered
    return require_safe_url(answered, allow_plain_http)


def _bytes(text: str | None) -> bytes | None:
    try:
        return unb64url(text) if text is not None else None
    except ValueError:
        return None


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any], type_: type[T]) -> T:
    try:
        response = await session.post(url, json=body, allow_redirects=False)
        try:
            data = await read_bounded(response, _MAX_ANSWER)
        finally:
            finish(response)
    except (aiohttp.ClientError, TimeoutError, OSError, TooLarge):
        raise LatticeError("gateway_unreachable", f"{url} does not answer.") from None
    try:
        if response.status in (200, 201):
            return msgspec.json.decode(data, type=type_)
        decoded = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise LatticeError("gateway_unreachable", f"{url} does not answer as a Lattice gateway does.") from None
    raise error_from_body(response.status, decoded)
