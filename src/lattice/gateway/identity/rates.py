"""Requests per minute. They live in memory: a restart forgives a minute, and money never depends on them."""

from __future__ import annotations

import math
import time
from functools import lru_cache
from typing import Protocol

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from lattice.core.clock import MINUTE_MS
from lattice.core.errors import LatticeError


class Limited(Protocol):
    """A credential that may have a limit."""

    @property
    def id(self) -> str:
        """Its public name."""
        ...

    @property
    def requests_per_minute(self) -> int | None:
        """None: no limit."""
        ...


@lru_cache(maxsize=1024)
def _item(per_minute: int) -> RateLimitItem:
    return RateLimitItemPerMinute(per_minute)


class RequestRates:
    """A moving minute for each key that has a limit. `limits` keeps its own time, so this reads the same clock."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def require(self, record: Limited) -> None:
        """Count a request, or raise `rate_limited` with the time until the next one fits."""
        if record.requests_per_minute is None:
            return
        item = _item(record.requests_per_minute)
        if not self._limiter.hit(item, record.id):
            wait = self._limiter.get_window_stats(item, record.id).reset_time - time.time()
            raise LatticeError("rate_limited", retry_after_ms=min(MINUTE_MS, max(1, math.ceil(wait * 1000))))
