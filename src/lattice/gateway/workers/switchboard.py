"""The workers that talk to this gateway, by id, and what every part of it does when a lease or a query changed."""

from __future__ import annotations

from lattice.gateway.encrypted.version_rows import get_version
from lattice.gateway.queries.board import QueryBoard
from lattice.gateway.queries.rows import QueryRow
from lattice.gateway.store.database import Store
from lattice.gateway.workers.clock import SteadyClock
from lattice.gateway.workers.link import WorkerLink


class Switchboard:
    """The links in memory beside the store, the clock and the board that they are used with."""

    def __init__(self, store: Store, clock: SteadyClock, board: QueryBoard) -> None:
        self.store, self.clock, self.board = store, clock, board
        self.links: dict[str, WorkerLink] = {}
        self._artefacts: dict[tuple[str, int], str] = {}

    async def artefact(self, model_id: str, version: int) -> str:
        """The hash of a version's program, which never changes."""
        found = self._artefacts.get((model_id, version))
        if found is None:
            row = await self.store.read(get_version, model_id, version)
            found = self._artefacts[model_id, version] = (row.artefact_sha256 or b"").hex()
        return found

    def wake(self, model_id: str, version: int) -> None:
        """There is work for a model: the least loaded worker of it with room looks first."""
        fitting = [link for link in self.links.values() if (link.row.model_id, link.row.version) == (model_id, version)]
        for link in sorted(fitting, key=lambda link: -link.free):
            if link.free:
                link.wake()

    def freed(self, worker_id: str | None, query_id: str, *, cancel: bool = False) -> None:
        """A lease has ended; with `cancel` its worker is told."""
        link = self.links.get(worker_id or "")
        if link is not None:
            link.busy_ms = self.clock.now_ms()
            link.drop(query_id, cancel=cancel)
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
            link.drop(row.id, cancel=True)
        self.board.changed(row)
