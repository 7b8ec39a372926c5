"""What workers ask of the gateway: polls, results and failures; and what happens to their work when they stop.

Here the links in memory, the rows of workers and queries, and money meet. A worker's contact is billed, a lease is
durable before it is handed over, and a query ends exactly once.
"""

from __future__ import annotations

from collections.abc import Callable

from lattice.gateway.encrypted.blobs import BlobStore
from lattice.gateway.queries.board import QueryBoard
from lattice.gateway.store.database import Store
from lattice.gateway.workers.clock import SteadyClock
from lattice.gateway.workers.deliveries import Deliveries
from lattice.gateway.workers.endings import Endings
from lattice.gateway.workers.link import WorkerLink
from lattice.gateway.workers.polls import Polls
from lattice.gateway.workers.switchboard import Switchboard


class WorkerService:
    """All workers that talk to this gateway."""

    def __init__(
        self, store: Store, blobs: BlobStore, clock: SteadyClock, board: QueryBoard, blinding: Callable[[str], bytes]
    ) -> None:
        self.switchboard = Switchboard(store, clock, board)
        self.endings = Endings(self.switchboard)
        self.polls = Polls(self.switchboard, blobs, self.endings, blinding)
        self.deliveries = Deliveries(self.switchboard, blobs)

    @property
    def links(self) -> dict[str, WorkerLink]:
        """The workers' links by id."""
        return self.switchboard.links
