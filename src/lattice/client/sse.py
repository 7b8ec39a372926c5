"""Server-sent events, without I/O: bytes in, the `data:` of whole events out."""

from __future__ import annotations

from lattice.core.errors import LatticeError

MAX_EVENT = 16 * 1024 * 1024
DONE = "[DONE]"


class SseReader:
    """Collects lines until an event is whole. Comments (keep-alives), ids and event names are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[str]:
        """The data of every event that `chunk` completes, in order."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        events = [event for line in lines if (event := self._line(line.removesuffix(b"\r"))) is not None]
        if self._size + len(self._rest) > MAX_EVENT:
            raise LatticeError("reply_invalid", "A server-sent event is larger than this client accepts.")
        return events

    def _line(self, line: bytes) -> str | None:
        if not line:
            return self._finish() if self._data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value)
        return None

    def _finish(self) -> str:
        data, self._data, self._size = b"\n".join(self._data), [], 0
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise LatticeError("reply_invalid", "A server-sent event is not UTF-8.") from None


def encode_event(data: bytes) -> bytes:
    """One event; `data` is a single line (JSON, or `[DONE]`)."""
    return b"data: " + data + b"\n\n"
