"""How many workers a model should have (pure): what its settings say, and how long its queue is."""

from __future__ import annotations

import msgspec

MAX_WORKERS = 64


class Scaling(msgspec.Struct, frozen=True):
    """The members of a model's settings that concern workers; others are ignored.

    `autostart`: the first query starts a worker. A worker without work for `idle_seconds` stops, but never below
    `min_workers`. One more worker is started, up to `max_workers`, for each `queries_per_worker` that wait.
    """

    autostart: bool = False
    idle_seconds: int | None = None
    min_workers: int = 0
    max_workers: int = 1
    queries_per_worker: int = 8
    hardware_class: str | None = None


def read_scaling(settings: str) -> Scaling:
    """Of a model's settings as they are stored; what cannot be read counts as not set."""
    try:
        found = msgspec.json.decode(settings, type=Scaling)
    except (msgspec.MsgspecError, RecursionError):
        return Scaling()
    return found


def wanted_workers(scaling: Scaling, running: int, queued: int) -> int:
    """How many should run, given how many do; never fewer than run now, since idle ones stop by themselves."""
    most = min(max(scaling.max_workers, scaling.min_workers), MAX_WORKERS)
    if not scaling.autostart:
        return max(running, min(scaling.min_workers, most))
    needed = -(-queued // max(1, scaling.queries_per_worker))
    return max(running, min(most, max(scaling.min_workers, needed)))


def may_idle_out(scaling: Scaling, running: int, idle_ms: int) -> bool:
    """Whether a worker that has had nothing to do for so long may stop."""
    return scaling.idle_seconds is not None and running > scaling.min_workers and idle_ms >= scaling.idle_seconds * 1000
