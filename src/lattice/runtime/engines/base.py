"""What an engine is: something on this machine that answers OpenAI-shaped requests."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from lattice.core.relay import ModelOffer


class EventStream(Protocol):
    """A streamed answer, as lists of whole SSE events. `aclose` stops the engine's generating at once."""

    def __aiter__(self) -> EventStream: ...

    async def __anext__(self) -> list[bytes]: ...

    async def aclose(self) -> None: ...


class EngineReply(msgspec.Struct, frozen=True):
    """An answer: a whole `body`, or `events`, which the receiver must close."""

    status: int
    body: bytes = b""
    events: EventStream | None = None


class Engine(Protocol):
    """One lifecycle for every engine. `start` raises `engine_unavailable` with words that help."""

    @property
    def name(self) -> str:
        """What the status shows."""
        ...

    async def start(self) -> None:
        """Get ready to answer; may be called again after a failure or a stop."""
        ...

    async def stop(self) -> None:
        """Give back everything; safe to call twice."""
        ...

    async def offers(self) -> tuple[ModelOffer, ...]:
        """The models served now, the default first. Raises `engine_unavailable` when the engine does not answer."""
        ...

    async def chat(self, body: dict[str, Any], *, stream: bool) -> EngineReply:
        """Answer a chat request whose `model` is a local id."""
        ...

    async def embeddings(self, body: dict[str, Any]) -> EngineReply:
        """Answer an embeddings request whose `model` is a local id."""
        ...
