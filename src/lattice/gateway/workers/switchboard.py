"""The workers that talk to this gateway, by id, and what every part of it does when a lease or a query changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lattice.gateway.encrypted.version_rows import get_version
from lattice.gateway.queries.board import QueryBoard
from lattice.gateway.queries.rows import Leased, QueryRow, Seat
from lattice.gateway.store.database import Store
from lattice.gateway.workers.clock import SteadyClock
from lattice.gateway.workers.link import WorkerLink
from lattice.gateway.workers.rows import WorkerRow


class Switchboard:
    """The links in memory beside the store, the clock and the board that they are used with."""

    def __init__(self, store: Store, clock: SteadyClock, board: QueryBoard) -> None:
        self.store, self.clock, self.board = store, clock, board
        self.links: dict[str, WorkerLink] = {}
        self._artefacts: dict[tuple[str, int], str] = {}
        self._queued: dict[tuple[str, int], int] = {}
        """How often something was queued for a version here."""
        self.closing = False

    def close(self) -> None:
        """The gateway ends: no poll is held any more, else it would hold the server open."""
        self.closing = True
        for link in self.links.values():
            link.wake()

    async def artefact(self, model_id: str, version: int) -> str:
        """The hash of a version's program, which never changes."""
        found = self._artefacts.get((model_id, version))
        if found is None:
            row = await self.store.read(get_version, model_id, version)
            found = self._artefacts[model_id, version] = (row.artefact_sha256 or b"").hex()
        return found

    def wake(self, model_id: str, version: int) -> None:
        """There is work for a model: the least loaded worker of it with room looks first."""
        self._queued[model_id, version] = self._queued.get((model_id, version), 0) + 1
        for link in sorted(self._serving(model_id, version), key=lambda link: -link.free):
            if link.free:
                link.wake()

    @contextmanager
    def seat(self, model_id: str) -> Iterator[Seat | None]:
        """Room at the model's least loaded worker that waits, kept inside of the block; None behind a queue."""
        waiting = [link for link in self._serving(model_id) if link.waits and link.free]
        chosen = max(waiting, key=lambda link: link.free, default=None)
        if chosen is None or self.behind(chosen):
            yield None
            return
        with chosen.reserve(1):
            yield Seat(chosen.row.id, chosen.row.version)

    def queued(self, row: WorkerRow) -> int:
        """A number that grows whenever something is queued for such a worker."""
        return self._queued.get((row.model_id, row.version), 0)

    def behind(self, link: WorkerLink) -> bool:
        """Whether something was queued since the worker's queue was last seen to be empty."""
        return link.seen_empty != self.queued(link.row)

    def leased(self, worker_id: str, leases: list[Leased]) -> None:
        """These leases are durable: tell whoever waits, the worker among them."""
        link = self.links.get(worker_id)
        if link is None or not leases:
            return
        link.add(leases)
        link.busy_ms = self.clock.now_ms()
        link.wake()
        for each in leases:
            self.board.changed(each.row)

    def serves(self, model_id: str, version: int) -> bool:
        """Whether a worker here runs this version, or is about to."""
        return any(link.row.state in ("starting", "active") for link in self._serving(model_id, version))

    def _serving(self, model_id: str, version: int | None = None) -> list[WorkerLink]:
        return [
            link
            for link in self.links.values()
            if link.row.model_id == model_id and version in (None, link.row.version)
        ]

    def freed(self, worker_id: str | None, query_id: str, *, cancel: bool = False) -> None:
        """A lease has ended; with `cancel` its worker is told."""
        link = self.links.get(worker_id or "")
        if link is not None:
            link.busy_ms = self.clock.now_ms()
            link.drop(query_id, link.busy_ms, cancel=cancel)
            link.wake()

    def changed(self, changed: list[QueryRow]) -> None:
        """Tell whoever waits for these queries, and whoever may run them."""
        for row in changed:
            self.board.changed(row)
            if row.state == "queued":
                self.wake(row.model_id, row.version)

    def cancel(self, row: QueryRow) -> None:
        """A query ended from outside: tell its worker and whoever waits."""
        link = self.links.get(row.worker_id or "")
        if link is not None:
            link.drop(row.id, self.clock.now_ms(), cancel=True)
        self.board.changed(row)
