"""Server-sent events, split into whole events without touching their bytes."""

from __future__ import annotations

from lattice.core.errors import LatticeError

MAX_EVENT = 8 * 1024 * 1024


class EventSplitter:
    """Feed network chunks, get whole events, each ending in its blank line; an endless event is an error."""

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max = max_event
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes."""
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:  # after joining, because a chunk may end between the two
            data = data.replace(b"\r\n", b"\n")
        if data.endswith(b"\n\n") and data.count(b"\n\n") == 1:
            self._rest = b""
            return [data]
        *whole, self._rest = data.split(b"\n\n")
        if len(self._rest) > self._max:
            raise LatticeError("runtime_failed", "The engine sent an event without an end.")
        return [event + b"\n\n" for event in whole if event]

    def flush(self) -> list[bytes]:
        """The last event of a server that forgets its blank line."""
        rest, self._rest = self._rest.strip(), b""
        return [rest + b"\n\n"] if rest else []


def event_data(event: bytes) -> bytes | None:
    """The `data` of an event, or None for comments and keep-alives."""
    if event.startswith(b"data: ") and event.count(b"\n") == 2:
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
