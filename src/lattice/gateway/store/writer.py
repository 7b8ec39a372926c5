"""The one writer: a thread that commits whatever is waiting in a single transaction.

Under load a commit costs one fsync for tens of writes; alone, a write waits for nobody. Each write runs under its own
SAVEPOINT, so one that fails harms no neighbour, and no caller hears of success before the COMMIT.

A write may be run again when another writer got in its way, so it must touch nothing but the connection.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

from lattice.gateway.store.errors import is_conflict, translate, unavailable

MAX_BATCH = 256
_RETRIES = 3


class Job(NamedTuple):
    """A write and who waits for it."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Outcome(NamedTuple):
    job: Job
    value: Any
    error: BaseException | None


class Writer:
    """Runs jobs in batches on its own thread until closed; `close` first finishes what is queued."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._conn: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="lattice-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; not to be called after `close`."""
        self._queue.put(job)

    def close(self) -> None:
        """Drain, then stop. Blocks; call it off the event loop."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            stop = False
            for _ in range(min(self._queue.qsize(), MAX_BATCH - 1)):
                job = self._queue.get()
                if job is None:
                    stop = True
                    break
                batch.append(job)
            _deliver(self._commit([job for job in batch if not job.future.cancelled()]))
            if stop:
                break
        self._drop_connection()

    def _commit(self, batch: list[Job]) -> list[_Outcome]:
        outcomes = self._once(batch)
        if not any(outcome.error is not None and is_conflict(outcome.error) for outcome in outcomes):
            return outcomes
        # Locks taken by the neighbours may be part of the conflict, so nothing was committed: take turns.
        return [self._alone(job) for job in batch]

    def _alone(self, job: Job) -> _Outcome:
        for _ in range(_RETRIES):
            (outcome,) = self._once([job])
            if outcome.error is None or not is_conflict(outcome.error):
                break
        return outcome

    def _once(self, batch: list[Job]) -> list[_Outcome]:
        """One transaction. It commits unless a write met a conflict; then all of it is rolled back."""
        if not batch:
            return []
        try:
            conn = self._connection()
            conn.begin()
            outcomes = [_attempt(conn, job) for job in batch]
            if any(outcome.error is not None and is_conflict(outcome.error) for outcome in outcomes):
                conn.rollback()
            else:
                conn.commit()
        except BaseException as error:
            self._drop_connection()
            return [_Outcome(job, None, unavailable(error)) for job in batch]
        return outcomes

    def _connection(self) -> Connection:
        if self._conn is None:
            self._conn = self._engine.connect()
        return self._conn

    def _drop_connection(self) -> None:
        conn, self._conn = self._conn, None
        if conn is None:
            return
        try:
            conn.invalidate()
            conn.close()
        except Exception:  # noqa: S110  the connection is already lost; nothing in it was acknowledged
            pass


def _attempt(conn: Connection, job: Job) -> _Outcome:
    cursor = conn.connection.cursor()  # the driver's own: SAVEPOINT through SQLAlchemy costs ten times as much
    cursor.execute("SAVEPOINT job")
    try:
        value = job.fn(conn, *job.args, **job.kwargs)
    except Exception as error:
        cursor.execute("ROLLBACK TO SAVEPOINT job")
        cursor.execute("RELEASE SAVEPOINT job")
        return _Outcome(job, None, error)
    cursor.execute("RELEASE SAVEPOINT job")
    return _Outcome(job, value, None)


def _deliver(outcomes: list[_Outcome]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome.job.loop, []).append(outcome)
    for loop, group in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, group)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            continue


def _resolve(outcomes: list[_Outcome]) -> None:
    for job, value, error in outcomes:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(translate(error))
