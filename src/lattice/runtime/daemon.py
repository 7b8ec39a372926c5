"""The daemon: one engine, one local API, one relay connection, from start to drained stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog

from lattice import __version__
from lattice.core.clock import Clock, SystemClock
from lattice.core.errors import LatticeError
from lattice.core.models import personal_model
from lattice.runtime.allow import AllowList
from lattice.runtime.board import ModelBoard
from lattice.runtime.engines.base import Engine
from lattice.runtime.engines.choice import make_engine
from lattice.runtime.local_api import LocalApi
from lattice.runtime.machine import PAIRING_FILE, Pairing, load_or_create_identity, load_pairing
from lattice.runtime.relay import RelayConnection
from lattice.runtime.server import serving
from lattice.runtime.settings import DaemonSettings
from lattice.runtime.state import StateDir
from lattice.runtime.status import ENDPOINT_FILE, TOKEN_FILE, DaemonStatus, Endpoint, EngineStatus, PairingStatus
from lattice.runtime.transport import RelayTransport
from lattice.runtime.work import WorkRunner
from lattice.runtime.work_keys import WorkKeys

log = structlog.get_logger("lattice.daemon")

DRAIN_LIMIT_S = 30.0
_PAIRING_WATCH_S = 1.0
_ENGINE_REFRESH_S = 30.0
_ENGINE_RETRY_S = 5.0


class Daemon:
    """`run` until told to stop by SIGTERM, SIGINT or `stop`."""

    def __init__(self, settings: DaemonSettings, *, engine: Engine | None = None, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._state = StateDir(settings.state_dir)
        self._engine = engine or make_engine(settings.engine)
        self._board = ModelBoard()
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self._engine_tried = asyncio.Event()
        self._pairing: Pairing | None = None
        self._relay: RelayConnection | None = None
        self._relay_problem: str | None = None
        self._relay_task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._started_at_ms = 0
        self.endpoint: Endpoint | None = None
        self.ready = asyncio.Event()

    def stop(self) -> None:
        """Begin the drain; asked again, give back at once what still runs. Safe in a signal handler."""
        if self._stopping.is_set():
            self._hurried.set()
        self._stopping.set()

    async def run(self) -> None:
        """Hold the instance lock, serve, drain, clean up."""
        with self._state.lock():
            self._started_at_ms = self._clock.now_ms()
            self._identity = load_or_create_identity(self._state)
            self._pairing = load_pairing(self._state)
            self._handle_signals()
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(self._engine.stop)
                await stack.enter_async_context(self._background(self._keep_engine()))
                if self._settings.local_api.enabled:
                    await stack.enter_async_context(self._local_api())
                await stack.enter_async_context(self._background(self._keep_relay()))
                log.info("daemon_ready", version=__version__, api=self.endpoint.url if self.endpoint else None)
                self.ready.set()
                await self._stopping.wait()
                await self._drain()
            log.info("daemon_stopped")
        if self._failure is not None:
            raise self._failure

    def status(self) -> DaemonStatus:
        """What the machine is doing."""
        relay = self._relay.status if self._relay else None
        public = self._identity.public
        return DaemonStatus(
            version=__version__,
            pid=os.getpid(),
            started_at_ms=self._started_at_ms,
            state_dir=str(self._state.root),
            fingerprint=public.words,
            identity_key=public.text,
            engine=self._engine_status(),
            pairing=self._pairing_status(),
            relay=relay,
            local_api=self.endpoint.url if self.endpoint else None,
        )

    def _pairing_status(self) -> PairingStatus | None:
        pairing = self._pairing
        if pairing is None:
            return None
        return PairingStatus(pairing.runtime, pairing.origin, pairing.verified, personal_model(pairing.runtime))

    def _engine_status(self) -> EngineStatus:
        problem = self._board.problem
        state = "failed" if problem else "ready" if self._engine_tried.is_set() else "starting"
        return EngineStatus(self._engine.name, state, self._board.offers, str(problem) if problem else None)

    # -- the engine -------------------------------------------------------------------------------------------------

    async def _keep_engine(self) -> None:
        """Start the engine, notice new models, and try again when it is down: a person may fetch one meanwhile."""
        while True:
            known = self._board.version
            await self._board.refresh(self._engine)
            self._engine_tried.set()
            if self._relay is not None and self._board.version != known:
                self._relay.announce()
            problem = self._board.problem
            if problem is not None:
                log.warning("engine_unavailable", engine=self._engine.name, reason=str(problem))
            await asyncio.sleep(_ENGINE_RETRY_S if problem or not self._board.offers else _ENGINE_REFRESH_S)

    # -- the relay --------------------------------------------------------------------------------------------------

    async def _keep_relay(self) -> None:
        """Follow the pairing file: connect when there is one, connect anew when it is replaced."""
        await self._engine_tried.wait()  # a machine that is seen before it has models would refuse its first callers
        stamp: object = ()
        while True:
            now = self._state.stamp(PAIRING_FILE)
            if now != stamp:
                stamp = now
                await self._end_relay()
                self._begin_relay(load_pairing(self._state))
            await asyncio.sleep(_PAIRING_WATCH_S)

    def _begin_relay(self, pairing: Pairing | None) -> None:
        self._pairing = pairing
        if pairing is None:
            log.warning("not_paired", remedy="lattice-ctl relay connect --token lbt_…")
            return
        keys = WorkKeys(self._state, self._identity, pairing.runtime, self._clock)
        runner = WorkRunner(
            runtime=pairing.runtime,
            identity=self._identity,
            keys=keys,
            allows=AllowList(self._state).allows,
            engine=self._engine,
            board=self._board,
            clock=self._clock,
        )
        self._relay = RelayConnection(
            transport=RelayTransport(pairing.relay_url, pairing.credential),
            runner=runner,
            keys=keys,
            board=self._board,
            clock=self._clock,
            concurrency=self._settings.engine.concurrency,
            queue=self._settings.engine.queue,
        )
        self._relay_task = asyncio.create_task(self._run_relay(self._relay))

    async def _run_relay(self, relay: RelayConnection) -> None:
        try:
            await relay.run()
        except LatticeError as error:
            # Final, and the machine may still serve its owner on loopback: say so, and wait for a new pairing.
            log.error("relay_stopped", code=error.code, reason=str(error), remedy=error.spec.remedy)
            if not self._settings.local_api.enabled:
                self.stop()

    async def _end_relay(self) -> None:
        task, self._relay_task, self._relay = self._relay_task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _drain(self) -> None:
        log.info("daemon_draining")
        if self._relay is not None and self._relay_task is not None and not self._relay_task.done():
            await self._relay.drain(DRAIN_LIMIT_S, self._hurried)
        await self._end_relay()

    # -- the local API ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _local_api(self) -> AsyncIterator[None]:
        token = secrets.token_urlsafe(32)
        self._state.write_bytes(TOKEN_FILE, token.encode())
        api = LocalApi(
            engine=self._engine,
            board=self._board,
            status=self.status,
            runtime=lambda: self._pairing.runtime if self._pairing else None,
            token=token,
        )
        local = self._settings.local_api
        async with serving(api.app(), local.host, local.port) as (host, port):
            self.endpoint = Endpoint(os.getpid(), host, port, self._started_at_ms)
            self._state.write(ENDPOINT_FILE, self.endpoint)
            try:
                yield
            finally:
                self._state.remove(ENDPOINT_FILE)

    @contextlib.asynccontextmanager
    async def _background(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """A task that lives as long as the block; one that dies takes the daemon down instead of leaving half of it."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_background_end)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _on_background_end(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            self._failure = failure
            log.error(
                "daemon_part_failed", reason=str(failure) if isinstance(failure, LatticeError) else repr(type(failure))
            )
            self.stop()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread: a test
                loop.add_signal_handler(number, self.stop)


def serve(settings: DaemonSettings) -> None:
    """Run the daemon on the fastest event loop that is installed."""
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(settings))


async def _serve(settings: DaemonSettings) -> None:
    await Daemon(settings).run()
