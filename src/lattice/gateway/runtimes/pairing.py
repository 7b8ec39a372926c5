"""Bootstrap tokens and their redemption: the gateway never learns the pairing secret.

A redemption is two calls of one route. The first shows the token and an identity key and gets a challenge; it consumes
nothing. The second proves possession of that key, brings the first key configuration and the HMAC under the pairing
secret, and gets the runtime credential. The same identity key may repeat the second call while the token lives, so a
machine that crashed before it saved the credential loses nothing.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import SecretPrefix, b64url, new_secret, unb64url
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.runtimes.bootstrap import BootstrapRow, find_bootstrap, redeem_bootstrap, void_bootstrap
from lattice.gateway.store.database import Store
from lattice.sealing.identity import PublicIdentity
from lattice.sealing.key_config import SignedKeyConfig, require_current, verify_key_config
from lattice.sealing.pairing import redemption_proof_message

PROOF_LABEL = b"lattice redemption v1"


class RedemptionRequest(msgspec.Struct, omit_defaults=True):
    """Both calls of `POST /v1/personal-runtime-bootstrap-redemptions`."""

    token: str
    identity_key: str
    challenge: str | None = None
    proof: str | None = None
    key_config: str | None = None
    mac: str | None = None
    name: str | None = None


class Pairing:
    """The redemption, over the store."""

    def __init__(self, store: Store, pepper: Pepper, clock: Clock, origin: str, gateway_key: str) -> None:
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self.origin = origin
        self._gateway_key = gateway_key

    async def redeem(self, request: RedemptionRequest) -> tuple[int, dict[str, object]]:
        """Answer either call: `(status, body)`."""
        if "." in request.token:
            await self._void(request.token.partition(".")[0])
            raise LatticeError("pairing_secret_leaked")
        identity = _identity(request.identity_key)
        token_hash = self._pepper.hash(request.token)
        bootstrap = await self._store.read(find_bootstrap, token_hash, identity.raw, self._clock.now_ms())
        if request.proof is None:
            return 200, self._challenge(bootstrap, token_hash, identity)
        return 201, await self._complete(request, bootstrap, token_hash, identity)

    def _challenge(self, bootstrap: BootstrapRow, token_hash: bytes, identity: PublicIdentity) -> dict[str, object]:
        return {
            "runtime": bootstrap.runtime_id,
            "origin": self.origin,
            "challenge": b64url(self._expected_challenge(token_hash, identity)),
            "app_key": _text(bootstrap.app_key),
            "app_key_mac": _text(bootstrap.app_key_mac),
            "gateway_key": self._gateway_key,
        }

    async def _complete(
        self, request: RedemptionRequest, bootstrap: BootstrapRow, token_hash: bytes, identity: PublicIdentity
    ) -> dict[str, object]:
        challenge = _bytes(request.challenge, "challenge")
        if not hmac.compare_digest(challenge, self._expected_challenge(token_hash, identity)):
            raise LatticeError("bootstrap_token_invalid", "The challenge is not the one given for this token and key.")
        key_config = _bytes(request.key_config, "key_config")
        message = redemption_proof_message(challenge, token_hash_public(request.token), key_config)
        identity.verify(PROOF_LABEL, message, _bytes(request.proof, "proof"))
        config = verify_key_config(SignedKeyConfig.decode(key_config), identity, bootstrap.runtime_id)
        require_current(config, self._clock.now_ms())
        mac = None if request.mac is None else _bytes(request.mac, "mac")
        if bootstrap.app_key_mac is not None and mac is None:
            raise LatticeError("pairing_invalid", "A pairing secret was minted and the redemption has no HMAC.")
        credential = new_secret(SecretPrefix.RUNTIME_CREDENTIAL)
        await self._store.write(
            redeem_bootstrap,
            token_hash,
            identity_key=identity.raw,
            credential_hash=self._pepper.hash(credential),
            key_config=key_config,
            pairing=msgspec.msgpack.encode({"mac": mac, "app_key": bootstrap.app_key, "key_config": key_config}),
            now_ms=self._clock.now_ms(),
            name=request.name,
        )
        return {
            "runtime": bootstrap.runtime_id,
            "credential": credential,
            "gateway_key": self._gateway_key,
            "relay_url": self.origin,
        }

    def _expected_challenge(self, token_hash: bytes, identity: PublicIdentity) -> bytes:
        return hmac.digest(self._pepper.mac_key, b"redemption challenge\0" + token_hash + identity.raw, "sha256")

    async def _void(self, gateway_part: str) -> None:
        await self._store.write(void_bootstrap, self._pepper.hash(gateway_part))


def token_hash_public(token: str) -> bytes:
    """The token as both sides can hash it (the store's HMAC is under the gateway's pepper)."""
    return hashlib.sha256(token.encode()).digest()


def _identity(text: str) -> PublicIdentity:
    try:
        return PublicIdentity.from_bytes(unb64url(text))
    except ValueError:
        raise LatticeError("invalid_request", "`identity_key` is not an Ed25519 public key.") from None


def _bytes(text: str | None, name: str) -> bytes:
    try:
        return unb64url(text or "")
    except ValueError:
        raise LatticeError("invalid_request", f"`{name}` is not unpadded base64url.") from None


def _text(data: bytes | None) -> str | None:
    return None if data is None else b64url(data)
