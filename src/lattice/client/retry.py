"""When to send again: only where a second send cannot run the work twice, and never for long."""

from __future__ import annotations

import random
from collections.abc import Callable

import httpx2
import msgspec

from lattice.core.errors import LatticeError

NOT_DELIVERED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""Failures before the first byte left: repeating is always safe."""

DROPPED = (httpx2.ReadError, httpx2.WriteError, httpx2.CloseError, httpx2.RemoteProtocolError)
"""The connection broke after something was sent: only an identical, deduplicated request may be repeated."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """Exponential back-off with full jitter. `max_retries` counts sends after the first; 0 turns retries off."""

    max_retries: int = 2
    base_s: float = 0.25
    cap_s: float = 8.0
    longest_wait_s: float = 60.0
    retry_answers: bool = True

    def after_failure(
        self, failure: httpx2.RequestError, sent: int, replay_safe: bool, jitter: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait after a transport failure on send number `sent` (from 1), or None to give up.

        A read timeout is never repeated: the work may be running, and the caller set that limit.
        """
        if sent > self.max_retries:
            return None
        if isinstance(failure, NOT_DELIVERED) or (replay_safe and isinstance(failure, DROPPED)):
            return self._backoff(sent, jitter)
        return None

    def after_answer(
        self, error: LatticeError, sent: int, replay_safe: bool, jitter: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait after an error answer, or None. The catalogue must call a repeat safe, and the gateway name a
        wait; `idempotency_in_flight` is the answer to our own repeat, so it is waited out."""
        if sent > self.max_retries or not error.spec.retry:
            return None
        if error.code == "idempotency_in_flight":
            return self._backoff(sent, jitter) if replay_safe else None
        if not self.retry_answers or error.status not in (429, 503) or error.retry_after_ms is None:
            return None
        wait = error.retry_after_ms / 1000
        return wait + self.base_s * jitter() if wait <= self.longest_wait_s else None

    def _backoff(self, sent: int, jitter: Callable[[], float]) -> float:
        ceiling: float = min(self.cap_s, self.base_s * 2.0 ** (sent - 1))
        return ceiling * (0.5 + 0.5 * jitter())
