"""Requests per minute. They live in memory: a restart forgives a minute, and money never depends on them."""

from __future__ import annotations

import math
from functools import lru_cache

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from lattice.core.clock import Clock, SystemClock
from lattice.core.errors import LatticeError
from lattice.gateway.identity.keys import KeyRecord


@lru_cache(maxsize=1024)
def _item(per_minute: int) -> RateLimitItem:
    return RateLimitItemPerMinute(per_minute)


class RequestRates:
    """A moving minute for each key that has a limit."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._clock = clock or SystemClock()

    def require(self, record: KeyRecord) -> None:
        """Count a request, or raise `rate_limited` with the time until the next one fits."""
        if record.requests_per_minute is None:
            return
        item = _item(record.requests_per_minute)
        if not self._limiter.hit(item, record.id):
            reset = self._limiter.get_window_stats(item, record.id).reset_time
            wait_ms = max(1, math.ceil(reset * 1000) - self._clock.now_ms())
            raise LatticeError("rate_limited", retry_after_ms=wait_ms)
