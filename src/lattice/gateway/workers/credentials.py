"""Who a worker is: its credential, checked against the store through a cache that lives at most a second."""

from __future__ import annotations

from lattice.core.clock import SECOND_MS, Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import SecretPrefix
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.store.database import Store
from lattice.gateway.workers.rows import WorkerRow, worker_by_credential

MAX_CACHED = 10_000
_PREFIX = f"{SecretPrefix.RUNTIME_CREDENTIAL}_"


class WorkerCredentials:
    """Authenticates `Authorization: Bearer rlc_…` of workers."""

    def __init__(self, store: Store, pepper: Pepper, clock: Clock) -> None:
        self._store, self._pepper, self._clock = store, pepper, clock
        self._cache: dict[bytes, tuple[int, WorkerRow]] = {}

    async def authenticate(self, authorization: str | None, *, stopped: bool = False) -> WorkerRow:
        """The worker behind a credential; `worker_stopped` for one that has ended, unless `stopped` ones may ask."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith(_PREFIX) or len(secret) > 128:
            raise LatticeError("invalid_credential", "This route takes a worker's credential.")
        digest, now = self._pepper.hash(secret), self._clock.now_ms()
        known = self._cache.get(digest)
        if known is not None and 0 <= now - known[0] < SECOND_MS:
            row: WorkerRow | None = known[1]
        else:
            row = await self._store.read(worker_by_credential, digest)
            if row is None:
                raise LatticeError("invalid_credential")
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            self._cache[digest] = (now, row)
        assert row is not None
        if not row.open and not stopped:
            raise LatticeError("worker_stopped", details={"reason": row.reason})
        return row

    def forget(self) -> None:
        """Drop every cached answer, so that a stop holds at once."""
        self._cache.clear()
