"""Frames on their way to the gateway: the first of a work at once, later ones gathered, many works in one POST.

A work has frames in at most one POST at a time, so that they arrive in order although two POSTs may be under way. A
POST that fails is repeated with the same sequence numbers, which the gateway uses to drop what it already has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from lattice.core.errors import LatticeError
from lattice.core.relay import COALESCE_MS, MAX_FRAMES_PER_POST, FailRequest, ResultFrame, WorkRef
from lattice.runtime.transport import RelayDown

MAX_POSTS = 2
MAX_POST_BYTES = 4 * 1024 * 1024
HIGH_WATER = 16 * 1024 * 1024
_MAX_FAILS = 8


class OutboxOwner(Protocol):
    """What the outbox asks of the relay connection."""

    def is_open(self, work_id: str, attempt: int) -> bool:
        """Whether anybody still waits for this attempt."""
        ...

    def lost(self, refs: Iterable[WorkRef]) -> None:
        """The gateway says that these attempts' leases are gone."""
        ...

    def settled(self, work_id: str, attempt: int) -> None:
        """The last word on this attempt was delivered."""
        ...


class Outbox:
    """One gateway's queue of frames and failures. `post` and `post_fail` return what the gateway says is lost."""

    def __init__(
        self,
        owner: OutboxOwner,
        post: Callable[[tuple[ResultFrame, ...]], Awaitable[tuple[WorkRef, ...]]],
        post_fail: Callable[[FailRequest], Awaitable[tuple[WorkRef, ...]]],
        backoff: Callable[[int], float],
    ) -> None:
        self._owner = owner
        self._post = post
        self._post_fail = post_fail
        self._backoff = backoff
        self._pending: dict[str, list[ResultFrame]] = {}
        self._fails: dict[str, FailRequest] = {}
        self._busy: set[str] = set()
        self._bytes = 0
        self._posts = 0
        self._failing = 0
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, frame: ResultFrame) -> None:
        """Queue a frame; a first or final one goes with the next turn of the loop, others within 25 ms."""
        queued = self._pending.get(frame.work_id)
        if queued is None:
            self._pending[frame.work_id] = [frame]
        else:
            queued.append(frame)
        self._bytes += len(frame.frame)
        if self._bytes > HIGH_WATER:
            self._room.clear()
        if frame.sequence == 0 or frame.final or self._bytes > MAX_POST_BYTES:
            self._flush_soon()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_MS / 1000, self._on_timer)

    async def room(self) -> None:
        """Wait while too much is queued."""
        if not self._room.is_set():
            await self._room.wait()

    def fail(self, failure: FailRequest) -> None:
        """Queue the report of a failed attempt, to go after the frames that the attempt produced."""
        self._fails[failure.work_id] = failure
        self._flush_soon()

    def discard(self, work_id: str) -> None:
        """Forget what is queued for a work that nobody waits for."""
        for frame in self._pending.pop(work_id, ()):
            self._shrink(frame)
        self._fails.pop(work_id, None)

    async def close(self) -> None:
        """Stop sending."""
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _flush_soon(self) -> None:
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        self._soon = False
        while self._pending and self._posts < MAX_POSTS:
            batch = self._take()
            if not batch:
                break
            self._posts += 1
            self._spawn(self._deliver(batch))
        if self._fails:
            self._flush_fails()

    def _take(self) -> tuple[ResultFrame, ...]:
        """The next POST's frames: whole works in order of arrival, none that has frames under way."""
        batch: list[ResultFrame] = []
        size = 0
        for work_id in [w for w in self._pending if w not in self._busy]:
            queued = self._pending[work_id]
            taken = 0
            for frame in queued:
                if batch and (len(batch) >= MAX_FRAMES_PER_POST or size + len(frame.frame) > MAX_POST_BYTES):
                    break
                batch.append(frame)
                size += len(frame.frame)
                taken += 1
            if taken:
                self._busy.add(work_id)
            if taken < len(queued):
                self._pending[work_id] = queued[taken:]
                break
            del self._pending[work_id]
        return tuple(batch)

    async def _deliver(self, batch: tuple[ResultFrame, ...]) -> None:
        works = {frame.work_id for frame in batch}
        try:
            lost = await self._until_taken(batch)
        finally:
            self._posts -= 1
            self._busy -= works
            for frame in batch:
                self._shrink(frame)
        gone = {(ref.work_id, ref.attempt) for ref in lost}
        if gone:
            self._owner.lost(lost)
        for frame in batch:
            if frame.final and (frame.work_id, frame.attempt) not in gone:
                self._owner.settled(frame.work_id, frame.attempt)
        if self._pending or self._fails:
            self._flush()

    async def _until_taken(self, batch: tuple[ResultFrame, ...]) -> tuple[WorkRef, ...]:
        tries = 0
        while batch:
            try:
                return await self._post(batch)
            except RelayDown as down:
                tries += 1
                await asyncio.sleep(max(self._backoff(tries), down.retry_after_s))
                batch = tuple(f for f in batch if self._owner.is_open(f.work_id, f.attempt))
            except LatticeError:
                # The gateway understood and refused: the same bytes would be refused again.
                return tuple({WorkRef(f.work_id, f.attempt): None for f in batch})
        return ()

    def _flush_fails(self) -> None:
        ready = [f for w, f in self._fails.items() if w not in self._busy and w not in self._pending]
        for failure in ready[: _MAX_FAILS - self._failing]:
            del self._fails[failure.work_id]
            self._busy.add(failure.work_id)
            self._failing += 1
            self._spawn(self._report(failure))

    async def _report(self, failure: FailRequest) -> None:
        tries = 0
        try:
            while self._owner.is_open(failure.work_id, failure.attempt):
                try:
                    await self._post_fail(failure)
                    break
                except RelayDown as down:
                    tries += 1
                    await asyncio.sleep(max(self._backoff(tries), down.retry_after_s))
                except LatticeError:
                    break
        finally:
            self._failing -= 1
            self._busy.discard(failure.work_id)
        self._owner.settled(failure.work_id, failure.attempt)
        if self._pending or self._fails:
            self._flush()

    def _shrink(self, frame: ResultFrame) -> None:
        self._bytes -= len(frame.frame)
        if self._bytes <= HIGH_WATER // 2:
            self._room.set()

    def _spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
