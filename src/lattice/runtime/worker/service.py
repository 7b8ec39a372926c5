"""The worker's loop: poll, load, evaluate several queries at once, deliver, and end when told or no longer paid for."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from lattice.core.errors import LatticeError
from lattice.core.ids import unb64url
from lattice.core.worker_relay import WORKER_FAIL_CODES, WorkerFail, WorkerPoll, WorkerReply, WorkerWork
from lattice.fhe.cancel import Cancel
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.runtime.transport import RelayDown, jittered_backoff
from lattice.runtime.worker import evaluation
from lattice.runtime.worker.blobs import BlobCache
from lattice.runtime.worker.clock import PaidClock, leave, watch_parent
from lattice.runtime.worker.link import WorkerLink
from lattice.runtime.worker.memory import Memory
from lattice.runtime.worker.programs import Programs
from lattice.sealing.identity import IdentityKey

EXIT_FAILED, EXIT_CREDENTIAL = 1, 5
DRAIN_S = 5.0
"""How long running queries may take after a stop; the gateway keeps as much paid time in reserve."""
DELIVERY_TRIES = 4
RETRY_S = 0.25
HAND_OVER_MS = 20
"""From a result to the next query, on a slow day."""
LONG_MS = 1_000
"""Evaluations longer than this lose less than two parts in a hundred between two of them."""
NEVER_S = 1e9

T = TypeVar("T")

log = structlog.get_logger("lattice.worker")


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker runs. The repr leaves the credential out."""

    gateway: str
    credential: str
    cache: Path
    concurrency: int = 0
    cache_bytes: int = 20 << 30
    memory_bytes: int = 8 << 30
    """Half for decoded keys, half for decoded databases."""

    @property
    def at_once(self) -> int:
        """Queries at a time: one for each core unless said."""
        return self.concurrency or cores()

    def __repr__(self) -> str:
        return f"WorkerSettings(gateway={self.gateway!r})"


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """One process's work for one model. `run` returns the exit status."""

    def __init__(self, settings: WorkerSettings, link: WorkerLink, clock: PaidClock) -> None:
        self._settings, self._link, self._clock = settings, link, clock
        self._session = "ses_" + secrets.token_hex(12)
        self._identity = IdentityKey.generate()
        self._blobs = BlobCache(settings.cache, settings.cache_bytes)
        self._keys: Memory[evaluation.UserKeys] = Memory(settings.memory_bytes // 2)
        self._databases: Memory[list[Ciphertext]] = Memory(settings.memory_bytes // 2)
        self._threads = ThreadPoolExecutor(settings.at_once, thread_name_prefix="evaluate")
        self._programs = Programs(
            lambda sha256: self._patiently(lambda: self._blobs.get(sha256, self._link.download)),
            self._say,
            lambda: self.stop("failed"),
            settings.memory_bytes,
        )
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._cancels: dict[tuple[str, int], Cancel] = {}
        self._secret = b""
        self._evaluate_ms: int | None = None
        self._changed = asyncio.Event()
        self.ending: str | None = None
        """Why no more work is taken; None while it is."""

    def stop(self, reason: str) -> None:
        """Take no more work, finish what runs, and end."""
        if self.ending is None:
            self.ending = reason
            log.info("worker.stopping", reason=reason, running=len(self._running))
            self._changed.set()

    def _say(self) -> None:
        self._changed.set()

    async def run(self) -> int:
        """Work until stopped or refused."""
        log.info("worker.started", session=self._session, concurrency=self._settings.at_once)
        tries = 0
        while self.ending is None:
            try:
                reply = await self._poll_or_change()
            except RelayDown as down:
                tries += 1
                log.warning("worker.gateway_unreachable", reason=str(down), paid_for_s=round(self._clock.left_s(), 1))
                await asyncio.sleep(max(min(jittered_backoff(tries), 2.0), down.retry_after_s))
            except LatticeError as error:
                log.error("worker.refused", code=error.code)
                return EXIT_CREDENTIAL if error.status in (401, 403) else EXIT_FAILED
            else:
                tries = 0
                if reply is not None:
                    self._take(reply)
        return await self._drain()

    async def _poll_or_change(self) -> WorkerReply | None:
        """One poll. It is cut short, and None returned, where the next one has something new to say."""
        self._changed.clear()
        polling = asyncio.ensure_future(self._link.poll(self._said()))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((polling, changed), return_when=asyncio.FIRST_COMPLETED)
            return polling.result() if polling.done() else None
        finally:
            for task in (polling, changed):
                task.cancel()
            with suppress(asyncio.CancelledError, RelayDown, LatticeError):
                await polling

    def _said(self, *, ending: bool = False) -> WorkerPoll:
        ahead = queries_ahead(self._settings.at_once, self._evaluate_ms)
        return WorkerPoll(
            session=self._session,
            active=self._programs.active,
            running=tuple(dict.fromkeys(query for query, _ in self._running)),
            cached=self._keys.hashes[-64:],
            concurrency=self._settings.at_once + ahead if self._programs.ready else 0,
            ahead=ahead,
            identity=self._identity.public.text,
            ending=ending,
            inline=True,
            loaded=self._programs.loaded,
            no_room=self._programs.no_room,
            rejected=self._programs.rejected,
            rejected_because=self._programs.rejected_because,
        )

    def _take(self, reply: WorkerReply) -> None:
        """Act on a reply: time first, then what ends, then what begins."""
        self._clock.renew(reply.paid_for_ms, billed=self._programs.active)
        if reply.blinding:
            self._secret = unb64url(reply.blinding)
        for query in reply.cancel:  # before new work: the same query may come again in this very reply
            self._cancel(query)
        for work in reply.work:
            key = (work.id, work.attempt)
            if key not in self._running:
                # Held before anything is dropped: it may have been leased before another version took over.
                model = self._programs.hold(work.artefact)
                self._cancels[key] = Cancel()
                self._running[key] = asyncio.create_task(self._serve(work, model))
        if reply.artefact:
            self._programs.want(reply.artefact, reply.next)
        if reply.stop:
            self.stop(reply.stop)

    async def _serve(self, work: WorkerWork, model: evaluation.Model | None) -> None:
        """One query, from its bytes to its delivered results; a failure is told to the gateway."""
        began, cancel = time.monotonic(), self._cancels[work.id, work.attempt]
        expiry = asyncio.get_running_loop().call_later(work.expires_in_ms / 1000 or NEVER_S, cancel.cancel)
        try:
            if model is None:
                raise RelayDown("the gateway sent a query for a program that is not loaded")
            outcome = await self._answer(work, model, cancel)
            answered = time.monotonic()
            cancel.check()
            await self._patiently(lambda: self._link.results(work.id, work.attempt, outcome.pieces, outcome.receipt))
            log.info(
                "query.answered",
                query=work.id,
                attempt=work.attempt,
                evaluate_ms=outcome.milliseconds,
                fetch_ms=_ms(answered - began) - outcome.milliseconds,
                deliver_ms=_ms(time.monotonic() - answered),
            )
        except LatticeError as error:
            if cancel.cancelled:
                # The gateway ended it, or its time is up here and there; nobody waits for a word.
                log.info("query.cancelled", query=work.id, attempt=work.attempt, **error.details)
            else:
                await self._fail(work, error.code, error.message)
        except (RelayDown, OSError) as error:
            await self._fail(work, "runtime_failed", type(error).__name__, requeue=True)
        except Exception as error:
            # Whatever a numeric kernel throws must not end the worker, nor quote data in a log.
            await self._fail(work, "runtime_failed", type(error).__name__)
        finally:
            if model is not None:
                self._programs.release(work.artefact)
            expiry.cancel()
            del self._running[work.id, work.attempt], self._cancels[work.id, work.attempt]

    def _cancel(self, query: str | None) -> None:
        """That query, or all of them."""
        for (name, _), cancel in self._cancels.items():
            if query in (None, name):
                cancel.cancel()

    async def _answer(self, work: WorkerWork, model: evaluation.Model, cancel: Cancel) -> evaluation.Outcome:
        if not work.evaluation_keys:
            raise LatticeError("runtime_failed", "The query has no keys.")
        secret = unb64url(work.blinding) if work.blinding else self._secret
        keys, inputs, database = await asyncio.gather(
            self._patiently(lambda: self._user_keys(str(work.evaluation_keys), model)),
            self._inputs(work),
            self._database(work.database, model),
        )
        cancel.check()
        given = (model, keys, work, inputs, database, secret, self._identity, cancel)
        outcome = await self._in_thread(evaluation.answer, *given)
        self._evaluate_ms = outcome.milliseconds
        return outcome

    async def _inputs(self, work: WorkerWork) -> bytes:
        """What came with the work, if it is what the work names; else it is fetched."""
        if work.data and hashlib.sha256(work.data).hexdigest() == work.inputs:
            return work.data
        return await self._patiently(lambda: self._link.read(work.inputs))

    async def _user_keys(self, sha256: str, model: evaluation.Model) -> evaluation.UserKeys:
        async def make() -> tuple[evaluation.UserKeys, int]:
            path = await self._blobs.get(sha256, self._link.download)
            return await self._in_thread(evaluation.load_keys, path, model)

        return await self._keys.get(sha256, make)

    async def _database(self, sha256: str | None, model: evaluation.Model) -> list[Ciphertext]:
        if sha256 is None:
            return []

        async def make() -> tuple[list[Ciphertext], int]:
            path = await self._blobs.get(sha256, self._link.download)
            return await self._in_thread(evaluation.load_database, path, model)

        # Decoded for one set of parameters; a later version may have others.
        name = f"{sha256} {model.params.id}"
        return await self._patiently(lambda: self._databases.get(name, make))

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call that may succeed later, a few times."""
        for left in range(DELIVERY_TRIES - 1, -1, -1):
            try:
                return await call()
            except RelayDown as down:
                if not left:
                    raise
                await asyncio.sleep(max(RETRY_S, down.retry_after_s))
        raise AssertionError("unreachable")

    async def _fail(self, work: WorkerWork, code: str, message: str = "", *, requeue: bool = False) -> None:
        code = code if code in WORKER_FAIL_CODES else "runtime_failed"
        log.warning("query.failed", query=work.id, attempt=work.attempt, code=code)
        with suppress(LatticeError, RelayDown):
            await self._patiently(
                lambda: self._link.fail(WorkerFail(work.id, work.attempt, code, message[:500], requeue))
            )

    async def _drain(self) -> int:
        """Finish what runs within the reserve, say goodbye, end."""
        self._programs.close()
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=max(min(DRAIN_S, self._clock.left_s()), 0))
        unfinished = len(self._running)
        self._cancel(None)
        with suppress(LatticeError, RelayDown, TimeoutError):
            async with asyncio.timeout(2):
                await self._link.poll(self._said(ending=True))
        log.info("worker.ended", reason=self.ending, unfinished=unfinished)
        return EXIT_FAILED if self.ending == "failed" else 0


def queries_ahead(at_once: int, evaluate_ms: int | None) -> int:
    """How many queries to have at hand while others are evaluated, so that no core waits between two of them.

    None before the first evaluation, and none where one takes so long that another worker may be free before.
    """
    if evaluate_ms is None or evaluate_ms > LONG_MS:
        return 0
    return min(at_once, -(-at_once * HAND_OVER_MS // max(1, evaluate_ms)))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def serve(settings: WorkerSettings, parent: int | None = None) -> int:
    """Run a worker to its end in this process; `parent` is a descriptor whose end of file ends the worker."""
    if parent is not None:
        watch_parent(parent, lambda: log.warning("worker.ended", reason="parent_gone"))
    return asyncio.run(_serve(settings))


async def _serve(settings: WorkerSettings) -> int:
    clock = PaidClock()
    clock.watch(lambda: log.warning("worker.ended", reason="paid_time_over"))
    async with WorkerLink(settings.gateway, settings.credential) as link:
        worker = Worker(settings, link, clock)
        _on_signals(lambda: worker.stop("requested"))
        status = await worker.run()
    # Threads that still evaluate what nobody waits for would hold the process.
    leave(status)
    return status


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A Windows loop has no such signals, nor has a thread that is not the main one.
        with suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(number, stop)
