"""The parts of workers and queries that live as long as the gateway does."""

from __future__ import annotations

import asyncio

from lattice.core.clock import HOUR_MS, Clock
from lattice.gateway.encrypted.blobs import BlobStore
from lattice.gateway.encrypted.events import EventHub
from lattice.gateway.encrypted.webhooks import Webhooks
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.queries.board import QueryBoard
from lattice.gateway.queries.rows import QueryRow, forget_queries
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.store.database import Store
from lattice.gateway.workers.clock import SteadyClock
from lattice.gateway.workers.credentials import WorkerCredentials
from lattice.gateway.workers.driver_choice import open_drivers
from lattice.gateway.workers.fleet import Fleet
from lattice.gateway.workers.payments import AdminGrants, PaymentAdapter
from lattice.gateway.workers.rows import WorkerRow
from lattice.gateway.workers.service import WorkerService


class WorkerPlatform:
    """Workers, their fleet, and the board on which queries are waited for."""

    def __init__(
        self,
        settings: GatewaySettings,
        store: Store,
        pepper: Pepper,
        clock: Clock,
        gateway_id: str,
        blobs: BlobStore,
        events: EventHub,
        webhooks: Webhooks,
    ) -> None:
        self._store, self._clock = store, clock
        self._keep_ms = int(settings.query_retention_hours * HOUR_MS)
        self._events, self._webhooks = events, webhooks
        self.steady = steady = SteadyClock(clock)
        """The clock of leases and deadlines: the sweep that ends a query must count as whoever set its end."""
        self.board = QueryBoard(store)
        self.credentials = WorkerCredentials(store, pepper, steady)
        self.service = WorkerService(store, blobs, steady, self.board, lambda model: blinding_secret(pepper, model))
        self.driver = open_drivers(settings, gateway_id)
        self.fleet = Fleet(store, pepper, steady, gateway_id, self.service, self.driver, settings.origin)
        self.fleet.on_renewed.append(self.credentials.forget)
        self.payments: PaymentAdapter = AdminGrants()
        self.service.endings.on_stopped.append(self._stopped)

    def queued(self, row: QueryRow) -> None:
        """A query waits: for a worker that is busy, or for one that is to be started."""
        self.service.switchboard.wake(row.model_id, row.version)
        if not self.service.switchboard.serves(row.model_id, row.version):
            self.fleet.wake.set()

    def loops(self) -> list[asyncio.Task[None]]:
        """What runs while the gateway does."""
        return [asyncio.create_task(self.fleet.run_forever(), name="fleet")]

    async def upkeep(self) -> None:
        """Every few seconds: results that nobody may ask for any more go."""
        await self._store.write(forget_queries, self._clock.now_ms() - self._keep_ms)

    async def close(self) -> None:
        """Before the store closes."""
        await self.fleet.close()

    def _stopped(self, row: WorkerRow) -> None:
        self.credentials.forget()
        self._events.notify(row.model_id)
        self._webhooks.wake.set()


def blinding_secret(pepper: Pepper, model_id: str) -> bytes:
    """The provider's secret from which every worker of a model draws the same noise for the same request."""
    return pepper.hash(f"lattice blinding v1 {model_id}")
