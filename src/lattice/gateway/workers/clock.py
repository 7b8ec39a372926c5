"""The clock by which time is sold: it starts at the wall clock and then only counts, whatever is done to that one."""

from __future__ import annotations

import time

from lattice.core.clock import Clock, SystemClock


class SteadyClock:
    """`Clock` that never steps; a test's own clock is taken as it is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps = isinstance(clock, SystemClock)
        self._offset_ns = clock.now_ms() * 1_000_000 - time.monotonic_ns()

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, as far as the wall clock was right at the start."""
        return (self._offset_ns + time.monotonic_ns()) // 1_000_000 if self._steps else self._clock.now_ms()
