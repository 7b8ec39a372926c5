"""Clocks: one that runs and one that is told."""

from __future__ import annotations

import time

from lattice.core.clock import DAY_MS, ManualClock, SystemClock


def test_the_system_clock_gives_milliseconds() -> None:
    assert abs(SystemClock().now_ms() - time.time() * 1000) < 5000


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(5)
    assert clock.now_ms() == clock.now_ms() == 5
    clock.advance(DAY_MS)
    assert clock.now_ms() == 5 + 86_400_000
