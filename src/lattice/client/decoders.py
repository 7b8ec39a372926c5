"""From the bytes of a streamed answer to deltas: one decoder for sealed replies, one for the gateway's plain stream.

Both are pushed bytes, pulled for deltas until there are none, and told when the stream has ended.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from lattice.client.faults import decode_json, reported_error
from lattice.client.inference import refusal, settle
from lattice.client.results import Delta, Provenance, usage_of
from lattice.client.sealed import ReplyReader
from lattice.client.sse import DONE, SseReader
from lattice.core.errors import LatticeError


class Decoder(Protocol):
    """What a stream object needs."""

    provenance: Provenance

    def push(self, data: bytes) -> None:
        """Take bytes from the gateway."""
        ...

    def pull(self) -> Delta | None:
        """The next delta, or None until more bytes arrive."""
        ...

    def finish(self) -> None:
        """The stream has ended: raise unless it is whole."""
        ...


class SealedDecoder:
    """Opens sealed payloads and cuts them into deltas; complete only with a verified receipt."""

    def __init__(self, reader: ReplyReader, provenance: Provenance) -> None:
        self._reader = reader
        self._events = SseReader()
        self._ready: deque[Delta] = deque()
        self._refusal: bytes | None = None
        self.provenance = provenance

    def push(self, data: bytes) -> None:
        """Take bytes from the gateway."""
        self._reader.push(data)

    def pull(self) -> Delta | None:
        """The next delta, or None until more bytes arrive."""
        while not self._ready:
            payload = self._reader.pull()
            if payload is None:
                return None
            if self._reader.refused:
                self._refusal = payload
            else:
                self._ready.extend(_delta(event, self.provenance) for event in self._events.feed(payload))
        return self._ready.popleft()

    def finish(self) -> None:
        """Check the end and the receipt; an engine's late refusal is raised here."""
        settle(self._reader, self.provenance)
        if self._refusal is not None:
            raise refusal(self._reader, self._refusal, self.provenance)


class PlainDecoder:
    """Reads the gateway's own stream, which ends with `[DONE]` when it is whole."""

    def __init__(self, provenance: Provenance) -> None:
        self._events = SseReader()
        self._ready: deque[str] = deque()
        self._done = False
        self.provenance = provenance

    def push(self, data: bytes) -> None:
        """Take bytes from the gateway."""
        self._ready.extend(self._events.feed(data))

    def pull(self) -> Delta | None:
        """The next delta, or None until more bytes arrive."""
        while self._ready:
            event = self._ready.popleft()
            if event == DONE:
                self._done = True
            elif not self._done:
                return _delta(event, self.provenance)
        return None

    def finish(self) -> None:
        """Raise unless the gateway said that the stream is whole."""
        if not self._done:
            raise LatticeError(
                "reply_invalid", "The stream ended before it was complete.", request_id=self.provenance.request_id
            )


def _delta(event: str, provenance: Provenance) -> Delta:
    chunk = decode_json(event.encode())
    if not isinstance(chunk, dict):
        raise LatticeError("reply_invalid", "A chunk of the stream is not a JSON object.")
    if chunk.get("error"):
        raise reported_error(502, chunk, provenance.request_id)
    provenance.usage = usage_of(chunk) or provenance.usage
    return Delta(chunk)
