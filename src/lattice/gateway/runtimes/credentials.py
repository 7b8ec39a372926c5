"""Who a daemon is: runtime credentials, checked against the store through a cache that lives at most a second."""

from __future__ import annotations

from lattice.core.clock import SECOND_MS, Clock
from lattice.core.errors import LatticeError
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.runtimes.rows import RuntimeRow, runtime_by_credential
from lattice.gateway.store.database import Store

CACHE_MS = SECOND_MS
MAX_CACHED = 10_000


class RuntimeCredentials:
    """Authenticates `Authorization: Bearer rlc_…`."""

    def __init__(self, store: Store, pepper: Pepper, clock: Clock) -> None:
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self._cache: dict[bytes, tuple[int, RuntimeRow]] = {}

    async def authenticate(self, authorization: str | None) -> RuntimeRow:
        """The runtime behind a credential. Raises `invalid_credential` or `revoked_grant`."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith("rlc_"):
            raise LatticeError("invalid_credential", "The relay takes a runtime credential.")
        digest = self._pepper.hash(secret)
        now = self._clock.now_ms()
        cached = self._cache.get(digest)
        if cached is not None and now - cached[0] < CACHE_MS:
            return cached[1]
        row = await self._store.read(runtime_by_credential, digest)
        if len(self._cache) >= MAX_CACHED:
            self._cache.clear()
        self._cache[digest] = (now, row)
        return row

    def forget(self) -> None:
        """Drop every cached answer, so that a revocation or a new pairing holds at once."""
        self._cache.clear()
