"""Decoded things by hash, the least recently used first to go; each is made once, however many wait for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Memory(Generic[T]):
    """At most `max_bytes` by the sizes that `make` states; one thing larger than that is still kept alone."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._making: dict[str, asyncio.Lock] = {}

    @property
    def hashes(self) -> tuple[str, ...]:
        """What is there."""
        return tuple(self._kept)

    async def get(self, sha256: str, make: Callable[[], Awaitable[tuple[T, int]]]) -> T:
        """The thing; a failure is not remembered."""
        lock = self._making.setdefault(sha256, asyncio.Lock())
        try:
            async with lock:
                if sha256 not in self._kept:
                    self._kept[sha256] = await make()
                    self._evict()
                self._kept.move_to_end(sha256)
                return self._kept[sha256][0]
        finally:
            if not lock.locked():
                self._making.pop(sha256, None)

    def _evict(self) -> None:
        while len(self._kept) > 1 and sum(size for _, size in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)
