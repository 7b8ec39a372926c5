"""What the routes need of the gateway, and nothing more."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

from lattice.core.clock import Clock
from lattice.gateway.identity import KeyCache, KeyRecord, Pepper
from lattice.gateway.store import Store


class ApiState(Protocol):
    """The gateway, as its control-plane routes see it."""

    @property
    def store(self) -> Store:
        """The database."""
        ...

    @property
    def keys(self) -> KeyCache:
        """The key cache, to be cleared when a key changes."""
        ...

    @property
    def pepper(self) -> Pepper:
        """Hashes new keys and MACs request bodies."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    async def authenticate(self, request: Request) -> KeyRecord:
        """Who asks; raises `invalid_credential`, `revoked_grant`, `rate_limited` or `store_unavailable`."""
        ...
