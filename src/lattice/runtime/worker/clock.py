"""The end of a worker that nobody pays for, or whose parent is gone.

Both watchers are threads that end the process with `os._exit`: native code that is computing cannot be interrupted, and
an event loop that hangs must not keep a machine busy at somebody's expense.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

EXIT_UNPAID = 3
EXIT_PARENT_GONE = 4
LOADING_S = 60.0
"""How long a worker that is not billed yet waits for the gateway's next word."""
LOOK_S = 0.1


class PaidClock:
    """Until when this worker may run, by its own monotonic clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until = now() + LOADING_S
        self._lock = threading.Lock()

    def renew(self, paid_for_ms: int, *, billed: bool) -> None:
        """A reply arrived. While nothing is billed, hearing from the gateway is enough; after that only time counts."""
        with self._lock:
            if paid_for_ms > 0:
                self._until = self._now() + paid_for_ms / 1000
            elif not billed:
                self._until = self._now() + LOADING_S

    def left_s(self) -> float:
        """Seconds that remain; negative when they are over."""
        with self._lock:
            return self._until - self._now()

    def watch(self, on_end: Callable[[], None]) -> None:
        """Start the thread that ends the process at the end of the paid time."""

        def look() -> None:
            while (left := self.left_s()) > 0:
                time.sleep(min(left, LOOK_S))
            on_end()
            leave(EXIT_UNPAID)

        threading.Thread(target=look, name="paid-clock", daemon=True).start()


def watch_parent(descriptor: int, on_end: Callable[[], None]) -> None:
    """End the process when the other end of the pipe is closed: by the parent, or by the parent's death."""

    def look() -> None:
        with suppress(OSError):
            while os.read(descriptor, 4096):
                pass
        on_end()
        leave(EXIT_PARENT_GONE)

    threading.Thread(target=look, name="parent-pipe", daemon=True).start()


def leave(status: int) -> None:
    """End at once, with what was logged."""
    sys.stderr.flush()
    os._exit(status)
