"""One admitted work while it is in this gateway's memory: its lease, and the frames that wait for its caller."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Literal

from lattice.core.errors import LatticeError
from lattice.core.relay import ResultFrame, WorkRef

MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""How far a runtime may run ahead of a caller that reads slowly before the work is cancelled."""

MAX_ATTEMPTS = 3

State = Literal["queued", "leased", "ended"]


class LiveWork:
    """A work between admission and its end. Frames go in by `push`, the caller's handler takes them by `take`."""

    __slots__ = (
        "_buffered",
        "_bytes",
        "_failure",
        "_waiter",
        "account_id",
        "attempt",
        "deadline_ms",
        "dispatched",
        "envelope",
        "lease_expires_ms",
        "next_sequence",
        "runtime_id",
        "state",
        "taken",
        "tokens",
        "waited",
        "work_id",
    )

    def __init__(self, work_id: str, runtime_id: str, account_id: str, envelope: bytes, deadline_ms: int) -> None:
        self.work_id = work_id
        self.runtime_id = runtime_id
        self.account_id = account_id
        self.envelope = envelope
        self.deadline_ms = deadline_ms
        self.attempt = 0
        self.state: State = "queued"
        self.lease_expires_ms = 0
        self.next_sequence = 0
        self.tokens = 0
        self.taken = False
        self.waited = 0.0
        self.dispatched = False
        self._buffered: deque[ResultFrame] = deque()
        self._bytes = 0
        self._failure: LatticeError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ref(self) -> WorkRef:
        """The work and its current attempt."""
        return WorkRef(self.work_id, self.attempt)

    def push(self, frame: ResultFrame) -> bool:
        """Accept a frame of the current attempt. False where it is out of order, or nobody waits for it any more; a
        repeated one is simply ignored."""
        if frame.sequence < self.next_sequence:
            return True
        if frame.sequence > self.next_sequence or self.over:
            return False
        self.next_sequence += 1
        self._buffered.append(frame)
        self._bytes += len(frame.frame)
        if self._bytes > MAX_BUFFERED_BYTES and len(self._buffered) > 1:
            self.fail(LatticeError("work_cancelled", "The caller read too slowly."))
            return False
        self._wake()
        return True

    def cancel(self) -> None:
        """The caller is gone: what still waits for it will not be delivered, and so is not charged."""
        self._buffered.clear()
        self.fail(LatticeError("work_cancelled"))

    def fail(self, error: LatticeError) -> None:
        """End the wait of the caller's handler with an error; frames that came before are still delivered first."""
        if self._failure is None:
            self._failure = error
        self._wake()

    async def take(self) -> ResultFrame:
        """The next frame, in order. Raises the error with which the work failed once the frames before it are out."""
        while not self._buffered:
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            begun = time.perf_counter()
            try:
                await self._waiter
            finally:
                self.waited += time.perf_counter() - begun
        self.taken = True
        frame = self._buffered.popleft()
        self._bytes -= len(frame.frame)
        return frame

    def begin_attempt(self, attempt: int) -> None:
        """Forget an attempt of which nothing has reached the caller."""
        self.attempt = attempt
        self.dispatched = False
        self.next_sequence = 0
        self._buffered.clear()
        self._bytes = 0

    @property
    def over(self) -> bool:
        """Whether it failed, was cancelled or ended: no frame of it is wanted any more."""
        return self._failure is not None or self.state == "ended"

    @property
    def may_retry(self) -> bool:
        """Whether another attempt may start: never once a frame was handed to the caller."""
        return not self.taken and not self._buffered and self.attempt < MAX_ATTEMPTS

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
