"""Where a request carries its secret: `Authorization: Bearer`, as every OpenAI client does, or `x-api-key`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lattice.core.errors import LatticeError
from lattice.gateway import idempotency
from lattice.gateway.identity import Pepper

IDEMPOTENCY_HEADER = "idempotency-key"


class Caller(Protocol):
    """Whoever asks, by a developer key or an access token."""

    @property
    def id(self) -> str:
        """The credential's public name."""
        ...


def presented_secret(headers: Mapping[str, str]) -> str:
    """The secret as sent, or `invalid_credential`; two different ones are refused rather than guessed between."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    given = {secret for secret in (bearer.strip(), headers.get("x-api-key", "").strip()) if secret}
    if len(given) != 1 or (bearer and scheme.lower() != "bearer"):
        raise LatticeError("invalid_credential")
    return given.pop()


def request_guard(
    pepper: Pepper, record: Caller, route: str, headers: Mapping[str, str], body: bytes
) -> idempotency.Guard | None:
    """The request's idempotency guard, None where it sent no key. `route` is method and path, without the query."""
    key = headers.get(IDEMPOTENCY_HEADER)
    if key is None:
        return None
    return idempotency.guard(
        pepper.mac_key,
        key_id=record.id,
        route=route,
        idempotency_key=key,
        secret=presented_secret(headers),
        body=body,
    )
