"""Runtimes as the gateway reports them, and what this app itself thinks of their identity."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from lattice.core.chat import RequestShape
from lattice.core.errors import LatticeError
from lattice.core.ids import unb64url
from lattice.core.models import personal_model
from lattice.core.relay import ModelOffer
from lattice.sealing.identity import PublicIdentity
from lattice.sealing.key_config import SignedKeyConfig

DEFAULT_MAX_OUTPUT_TOKENS = 1024


class Trust(StrEnum):
    """This app's own judgement of a machine's identity key. Only `VERIFIED` is ever sealed to."""

    UNPAIRED = "unpaired"
    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    IDENTITY_CHANGED = "identity_changed"
    PAIRING_INVALID = "pairing_invalid"


class PairingProof(msgspec.Struct, frozen=True):
    """What the daemon left for the app that minted its bootstrap string."""

    mac: str | None = None
    app_key: str | None = None
    key_config: str | None = None


class PersonalRuntime(msgspec.Struct, frozen=True):
    """One machine. `gateway_verified` is the gateway's claim; `trust` is what this app checked for itself."""

    id: str
    state: str
    name: str = ""
    kind: str = "personal"
    gateway_verified: bool = msgspec.field(name="verified", default=False)
    models: tuple[ModelOffer, ...] = ()
    identity_key: str | None = None
    fingerprint: str | None = None
    key_config: str | None = None
    pairing: PairingProof | None = None
    last_seen_ms: int | None = None
    created_at_ms: int = 0
    trust: Trust = Trust.UNVERIFIED

    @property
    def reachable(self) -> bool:
        """Whether its daemon polls now."""
        return self.state == "reachable"

    @property
    def model(self) -> str:
        """The model id that addresses this machine."""
        return personal_model(self.id)

    @property
    def identity(self) -> PublicIdentity | None:
        """The identity key that the gateway shows, if the machine is paired."""
        if self.identity_key is None:
            return None
        try:
            return PublicIdentity.from_text(self.identity_key)
        except (LatticeError, ValueError):
            raise LatticeError("envelope_invalid", f"The identity key of {self.id} is malformed.") from None

    @property
    def words(self) -> str | None:
        """The word fingerprint, computed here: compare it with `lattice-ctl status` on the machine."""
        identity = self.identity
        return None if identity is None else identity.words

    def signed_key_config(self) -> SignedKeyConfig:
        """The newest interactive key configuration, not yet verified."""
        if self.key_config is None:
            raise LatticeError("runtime_unreachable", f"{self.id} has not been paired yet, so it has no work key.")
        return decode_key_config(self.key_config)

    def ceiling(self, shape: RequestShape, task: str) -> int:
        """The output ceiling that is sealed: the caller's own, else the model's default."""
        if task == "embeddings":
            return 0
        if shape.max_output_tokens is not None:
            return shape.max_output_tokens
        local = shape.model.removeprefix(self.model).removeprefix(":")
        offers = [m for m in self.models if task in m.tasks and local in ("", m.id)]
        return offers[0].default_max_output_tokens if offers else DEFAULT_MAX_OUTPUT_TOKENS


def runtime_from(data: Any) -> PersonalRuntime:
    """Read a runtime out of an answer. The `trust` of an answer is never taken over."""
    try:
        runtime = msgspec.convert(data, PersonalRuntime)
    except msgspec.ValidationError as error:
        raise LatticeError("gateway_unreachable", f"The gateway described a runtime wrongly: {error}.") from None
    return msgspec.structs.replace(runtime, trust=Trust.UNVERIFIED)


def decode_key_config(text: str) -> SignedKeyConfig:
    """Decode the base64url of a signed key configuration."""
    try:
        return SignedKeyConfig.decode(unb64url(text))
    except ValueError:
        raise LatticeError("envelope_invalid", "The key configuration is not base64url.") from None
