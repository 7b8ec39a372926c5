"""Keeps the workers that should run running: starts, restarts with back-off, idle stops, and scales with the queue."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, select

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import SecretPrefix, new_secret
from lattice.gateway.encrypted.model_rows import ModelRow, find_model
from lattice.gateway.encrypted.version_rows import ready_version, require_ready
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.queries.rows import waiting
from lattice.gateway.store.database import Store
from lattice.gateway.store.schema import encrypted_models
from lattice.gateway.workers import billing
from lattice.gateway.workers.drivers import FleetDriver, Launch
from lattice.gateway.workers.hardware import HardwareClass, find_class
from lattice.gateway.workers.rows import (
    OWN,
    NewWorker,
    WorkerRow,
    add_worker,
    find_worker,
    open_workers,
    set_worker,
)
from lattice.gateway.workers.scaling import MAX_WORKERS, Place, Scaling, may_idle_out, read_scaling, wanted_starts
from lattice.gateway.workers.service import WorkerService

_log = structlog.get_logger("lattice.gateway.fleet")

LOOK_SECONDS = 1.0
MAX_RESTARTS = 5
FIRST_BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0


class Started(msgspec.Struct, frozen=True):
    """A worker's row with its credential, which is told once."""

    row: WorkerRow
    credential: str

    def __repr__(self) -> str:
        return f"Started({self.row.id!r})"


class Fleet:
    """The workers that this gateway started."""

    def __init__(
        self,
        store: Store,
        pepper: Pepper,
        clock: Clock,
        gateway_id: str,
        service: WorkerService,
        driver: FleetDriver,
        origin: str,
    ) -> None:
        self._store, self._pepper, self._clock, self._gateway_id = store, pepper, clock, gateway_id
        self._service, self._driver, self._origin = service, driver, origin
        self._classes: dict[str, HardwareClass] = {}
        self._launched: set[str] = set()
        self._closing = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self.wake = asyncio.Event()
        service.endings.on_stopped.append(self._on_stopped)

    # --- starting ------------------------------------------------------------------------------------------

    def add(
        self, conn: Connection, model: ModelRow, hardware_class: str | None, count: int, version: int | None = None
    ) -> list[Started]:
        """Rows for new workers of a model's newest version, or of `version`; `launch` them once they are durable.

        Raises `worker_unavailable` where the model's weights may not go to such a machine.
        """
        number = require_ready(conn, model.id).number if version is None else version
        chosen = find_class(conn, hardware_class)
        if model.weights_exposure == "own" and chosen.name != OWN:
            raise LatticeError(
                "worker_unavailable",
                "The model's weights stay on its provider's own machines: start a worker of the class `own` there, "
                "or set `weights_exposure` to `hosted`.",
            )
        if len(open_workers(conn, model_id=model.id)) + count > MAX_WORKERS:
            raise LatticeError("invalid_request", f"A model has at most {MAX_WORKERS} workers.")
        billing.require_credits(conn, model.account_id, chosen.micro_per_second * count)
        self._classes[chosen.name] = chosen
        return [self._add(conn, model, number, chosen) for _ in range(count)]

    def _add(self, conn: Connection, model: ModelRow, version: int, chosen: HardwareClass) -> Started:
        secret = new_secret(SecretPrefix.RUNTIME_CREDENTIAL)
        new = NewWorker(
            account_id=model.account_id,
            model_id=model.id,
            version=version,
            hardware_class=chosen.name,
            price_micro_per_second=chosen.micro_per_second,
            credential_hash=self._pepper.hash(secret),
            gateway_id=self._gateway_id,
        )
        return Started(add_worker(conn, new, self._clock.now_ms()), secret)

    async def launch(self, started: Started) -> None:
        """Start the worker's process, unless it runs on its provider's own machine."""
        row = started.row
        if row.hardware_class == OWN or row.id in self._launched or self._closing:
            return
        chosen = self._classes.get(row.hardware_class)
        if chosen is None:
            chosen = await self._store.read(find_class, row.hardware_class)
        self._launched.add(row.id)
        launch = Launch(
            worker_id=row.id,
            credential=started.credential,
            gateway=self._origin,
            cores=chosen.cores,
            memory_mib=chosen.memory_mib,
            driver=chosen.driver,
        )
        try:
            await self._driver.start(launch, self._on_exit)
        except OSError as error:
            _log.error("worker_not_started", worker=row.id, error=type(error).__name__)
            self._launched.discard(row.id)
            await self._service.endings.end(row.id, "failed")

    # --- what ends -----------------------------------------------------------------------------------------

    def _on_exit(self, worker_id: str) -> None:
        self._launched.discard(worker_id)
        if not self._closing:
            self._spawn(self._gone(worker_id))

    def _on_stopped(self, row: WorkerRow) -> None:
        if row.id in self._launched:
            self._spawn(self._driver.stop(row.id))

    async def _gone(self, worker_id: str) -> None:
        """Its process is no more: that was its end, or another process takes its place after a while."""
        row = await self._store.read(find_worker, worker_id)
        if row is None or not row.open:
            return
        if row.state == "stopping" or row.restarts >= MAX_RESTARTS:
            await self._service.endings.end(worker_id, "failed")
            return
        _log.warning("worker_lost", worker=worker_id, restarts=row.restarts)
        row = await self._service.endings.lost(worker_id)
        await asyncio.sleep(min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (row.restarts - 1)))
        await self._relaunch(worker_id)

    async def _relaunch(self, worker_id: str) -> None:
        secret = new_secret(SecretPrefix.RUNTIME_CREDENTIAL)
        row = await self._store.write(_renew_credential, worker_id, self._pepper.hash(secret))
        if row.open:
            await self.launch(Started(row, secret))

    # --- what runs by itself -------------------------------------------------------------------------------

    async def resume(self) -> None:
        """At the start: this gateway's workers died with it. They are settled as seen and started again."""
        for row in await self._store.read(open_workers, gateway_id=self._gateway_id):
            if row.hardware_class == OWN:
                continue
            if row.state == "stopping" or row.restarts >= MAX_RESTARTS:
                await self._service.endings.end(row.id, "failed")
            else:
                await self._service.endings.lost(row.id)
                await self._relaunch(row.id)

    async def run_forever(self) -> None:
        """Look after everything once a second, and at once where a query waits for its first worker."""
        try:
            await self.resume()
        except LatticeError as error:
            _log.warning("resume_failed", code=error.code)
        while True:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self.wake.wait()
            except TimeoutError:
                pass
            self.wake.clear()
            try:
                await self._service.endings.sweep()
                await self.scale()
            except LatticeError as error:
                _log.warning("fleet_failed", code=error.code)

    async def scale(self) -> None:
        """Start workers for queues that are too long, and stop those that have had nothing to do."""
        needs, models, running = await self._store.read(_needs)
        for model_id, need in needs.items():
            model = models[model_id]
            scaling = read_scaling(model.settings)
            mine = [row for row in running if row.model_id == model_id and row.state in ("starting", "active")]
            places = [Place(row.heading, row.failed_version) for row in mine]
            starts = wanted_starts(scaling, places, need.queued, need.newest)
            for version, count in starts.items():
                await self._start(model, scaling, count, version)
            if not starts and not need.queued:
                await self._stop_idle(scaling, mine)

    async def _start(self, model: ModelRow, scaling: Scaling, count: int, version: int) -> None:
        try:
            for started in await self._store.write(self.add, model, scaling.hardware_class, count, version):
                _log.info("worker_autostart", worker=started.row.id, model=model.id)
                await self.launch(started)
        except LatticeError as error:
            _log.info("worker_autostart_refused", model=model.id, code=error.code)

    async def _stop_idle(self, scaling: Scaling, mine: list[WorkerRow]) -> None:
        now, running = self._clock.now_ms(), len(mine)
        for row in mine:
            link = self._service.links.get(row.id)
            if link is None or link.row.state != "active" or link.leased:
                continue
            if may_idle_out(scaling, running, now - link.busy_ms):
                await self._service.endings.stop(row.id, "idle")
                running -= 1

    async def close(self) -> None:
        """End the workers of this gateway; the next start settles and starts them again."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await self._driver.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _renew_credential(conn: Connection, worker_id: str, credential_hash: bytes) -> WorkerRow:
    row = find_worker(conn, worker_id, lock=True)
    assert row is not None
    if row.open:
        set_worker(conn, worker_id, credential_hash=credential_hash)
    return row


class Need(msgspec.Struct, frozen=True):
    """What waits for a model: queries by version; and its newest version, 0 for none."""

    newest: int
    queued: dict[int, int]


def _needs(conn: Connection) -> tuple[dict[str, Need], dict[str, ModelRow], list[WorkerRow]]:
    """The models that have a queue, workers or a least number of them; what waits for each; and what runs."""
    running = open_workers(conn)
    queued: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for each in waiting(conn):
        queued[each.model_id][each.version] = each.queries
    found = {row.model_id for row in running} | set(queued)
    kept = encrypted_models.c
    found |= set(
        conn.execute(
            select(kept.id).where(
                kept.deleted_at_ms.is_(None),
                kept.settings.like('%"min_workers":%'),
                kept.settings.not_like('%"min_workers":0%'),
                kept.settings.not_like('%"min_workers": 0%'),
            )
        ).scalars()
    )
    models = {model_id: model for model_id in found if (model := find_model(conn, model_id)) is not None}
    needs = {}
    for model_id in models:
        newest = ready_version(conn, model_id)
        needs[model_id] = Need(0 if newest is None else newest.number, queued.get(model_id, {}))
    return needs, models, running
