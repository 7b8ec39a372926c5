"""Two engines as one: chat from the first, embeddings from the second."""

from __future__ import annotations

from typing import Any

from lattice.core.relay import ModelOffer
from lattice.runtime.engines.base import Engine, EngineReply


class EnginePair:
    """llama.cpp loads a model either for chat or for embeddings, so serving both takes two."""

    def __init__(self, chat: Engine, embeddings: Engine) -> None:
        self._chat = chat
        self._embeddings = embeddings

    @property
    def name(self) -> str:
        """What the status shows."""
        return f"{self._chat.name}, {self._embeddings.name}"

    async def start(self) -> None:
        """Start both."""
        await self._chat.start()
        await self._embeddings.start()

    async def stop(self) -> None:
        """Stop both."""
        await self._chat.stop()
        await self._embeddings.stop()

    async def offers(self) -> tuple[ModelOffer, ...]:
        """Both offers, chat first."""
        return await self._chat.offers() + await self._embeddings.offers()

    async def chat(self, body: dict[str, Any], *, stream: bool) -> EngineReply:
        """Chat."""
        return await self._chat.chat(body, stream=stream)

    async def embeddings(self, body: dict[str, Any]) -> EngineReply:
        """Embeddings."""
        return await self._embeddings.embeddings(body)
