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


class Place(msgspec.Struct, frozen=True):
    """A worker that starts or is active: the version that it serves next, and one that it could not load."""

    version: int
    failed: int | None = None

    def serves(self, version: int, newest: int) -> bool:
        """Whether it has that version, or will: workers go on to the newest."""
        return self.version == version or (version == newest > self.version and self.failed != version)


def wanted_starts(scaling: Scaling, running: list[Place], queued: dict[int, int], newest: int) -> dict[int, int]:
    """How many workers to start, by version; none where enough run, since idle ones stop by themselves.

    Queues are counted by version, against the workers that serve it or will. An old version gets a worker only where
    queries wait for it and nobody is left to run them.
    """
    room = min(max(scaling.max_workers, scaling.min_workers), MAX_WORKERS) - len(running)
    starts = dict[int, int]()
    for version in sorted({newest, *queued} - {0}, reverse=True):
        serving = sum(place.serves(version, newest) for place in running)
        needed = -(-queued.get(version, 0) // max(1, scaling.queries_per_worker)) if scaling.autostart else 0
        if version == newest:
            more = max(needed - serving, scaling.min_workers - len(running))
        else:
            more = int(needed > 0 and not serving)
        starts[version] = max(0, min(more, room))
        room -= starts[version]
    return {version: count for version, count in starts.items() if count}


def may_idle_out(scaling: Scaling, running: int, idle_ms: int) -> bool:
    """Whether a worker that has had nothing to do for so long may stop."""
    return scaling.idle_seconds is not None and running > scaling.min_workers and idle_ms >= scaling.idle_seconds * 1000
