"""A sealed reply as a server-sent event stream: payloads in the order they open, `[DONE]` only after the receipt."""

from __future__ import annotations

from collections.abc import Iterator

from lattice.client.inference import SealedReply, refusal, settle
from lattice.client.openai_wire import done_event, error_event
from lattice.core.errors import LatticeError


class SseRelay:
    """Turns reply bytes into event bytes. Whatever fails becomes one last error event, never `[DONE]`."""

    def __init__(self, reply: SealedReply) -> None:
        self._reply = reply
        self.ended = False

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """The event bytes that `chunk` completes; an empty chunk means that the reply has ended."""
        reader = self._reply.reader
        try:
            reader.push(chunk)
            while (payload := reader.pull()) is not None:
                if reader.refused:
                    raise refusal(reader, payload, self._reply.provenance)
                if payload:
                    yield payload
            if not chunk:
                settle(reader, self._reply.provenance)
                self.ended = True
                yield done_event()
        except LatticeError as error:
            yield self.fail(error)

    def first(self) -> Iterator[bytes]:
        """The event bytes that were opened before the response began."""
        reader = self._reply.reader
        if reader.started and (payload := reader.pull()):
            yield payload

    def fail(self, error: LatticeError) -> bytes:
        """The last event of a stream that broke."""
        self.ended = True
        return error_event(error)
