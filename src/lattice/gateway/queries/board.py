"""Who waits for which query: wakes waiters of this process at once; those of other gateways look at the table."""

from __future__ import annotations

import asyncio

from lattice.gateway.queries.rows import QueryRow, find_query
from lattice.gateway.store.database import Store

LOOK_SECONDS = 0.5
"""How soon a change that another gateway made is seen."""


class QueryBoard:
    """One process's waiters."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Future[QueryRow]]] = {}

    def changed(self, row: QueryRow) -> None:
        """Tell everybody who waits for it."""
        for future in self._waiting.pop(row.id, ()):
            if not future.done():
                future.set_result(row)

    async def next_change(self, row: QueryRow) -> QueryRow:
        """The query once it is no longer as given, or as it is after a while."""
        future: asyncio.Future[QueryRow] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(row.id, set()).add(future)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await future
        except TimeoutError:
            return await self._store.read(find_query, row.id) or row
        finally:
            waiting = self._waiting.get(row.id)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[row.id]

    async def ended(self, row: QueryRow, seconds: float) -> QueryRow:
        """The query when it has ended, or when the time is up."""
        until = asyncio.get_running_loop().time() + seconds
        while row.open and asyncio.get_running_loop().time() < until:
            row = await self.next_change(row)
        return row
