"""Any OpenAI-compatible server on this machine: Ollama, LM Studio, vLLM, llama.cpp."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from lattice.core.errors import LatticeError
from lattice.core.relay import ModelOffer
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.engines.sse import EventSplitter
from lattice.runtime.http import TooLarge, finish, read_bounded

MAX_BODY = 30 * 1024 * 1024
_QUICK = aiohttp.ClientTimeout(total=10)
# No total time-out: the first answer may wait minutes for a model to load. Cancelling closes the connection at once.
_PATIENT = aiohttp.ClientTimeout(total=None, sock_connect=10)


class _Listed(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Listed] = []


class OpenAIEngine:
    """A pooled client of one server. `declared` offers replace what the server lists; `default` goes first."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        declared: tuple[ModelOffer, ...] = (),
        default: str | None = None,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._key = api_key
        self._declared = declared
        self._default = default
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """What the status shows."""
        return f"openai at {self._base}"

    async def start(self) -> None:
        """Open the pool. The server itself may come up later."""
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=headers, timeout=_PATIENT, auto_decompress=True, trust_env=False
            )

    async def stop(self) -> None:
        """Close the pool."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def offers(self) -> tuple[ModelOffer, ...]:
        """The declared models, or those that the server lists, sorted into chat and embeddings by their names."""
        if self._declared:
            return self._ordered(self._declared)
        try:
            async with self._client().get(f"{self._base}/models", timeout=_QUICK) as response:
                if response.status != 200:
                    raise self._refused(response.status)
                listed = msgspec.json.decode(await read_bounded(response, MAX_BODY), type=_ModelList)
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise self._down() from None
        except (msgspec.DecodeError, TooLarge):
            message = f"{self._base}/models does not answer as an OpenAI-compatible server does."
            raise LatticeError("engine_unavailable", message) from None
        return self._ordered(tuple(_guess(model.id) for model in listed.data))

    async def chat(self, body: dict[str, Any], *, stream: bool) -> EngineReply:
        """`POST /chat/completions`."""
        return await self._post("/chat/completions", body, stream)

    async def embeddings(self, body: dict[str, Any]) -> EngineReply:
        """`POST /embeddings`."""
        return await self._post("/embeddings", body, stream=False)

    async def _post(self, path: str, body: dict[str, Any], stream: bool) -> EngineReply:
        data = msgspec.json.encode(body)
        try:
            response = await self._send(self._base + path, data)
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise self._down() from None
        if stream and response.status == 200 and response.content_type == "text/event-stream":
            return EngineReply(200, events=_ResponseEvents(response))
        try:
            payload = await read_bounded(response, MAX_BODY)
        except TooLarge:
            raise LatticeError("runtime_failed", "The engine's answer is too large for the relay.") from None
        except (aiohttp.ClientError, OSError):
            raise LatticeError("runtime_failed", "The engine closed the connection in its answer.") from None
        finally:
            finish(response)
        if response.status in (401, 403):
            raise self._refused(response.status)
        return EngineReply(response.status, payload)

    async def _send(self, url: str, data: bytes) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json"}
        try:
            return await self._client().post(url, data=data, headers=headers)
        except aiohttp.ServerDisconnectedError:
            # A pooled connection that the server had just given up. Asking a local model once more does no harm.
            return await self._client().post(url, data=data, headers=headers)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise LatticeError("engine_unavailable", "The engine is not started.")
        return self._session

    def _down(self) -> LatticeError:
        return LatticeError("engine_unavailable", f"Nothing answers at {self._base}.")

    def _refused(self, status: int) -> LatticeError:
        message = f"{self._base} refused the daemon with HTTP {status}: check `engine.api_key` and `engine.base_url`."
        return LatticeError("engine_unavailable", message)

    def _ordered(self, offers: tuple[ModelOffer, ...]) -> tuple[ModelOffer, ...]:
        if self._default is None:
            # A request that names only the machine is a chat far more often than not.
            return tuple(sorted(offers, key=lambda offer: "chat" not in offer.tasks))
        return tuple(sorted(offers, key=lambda offer: offer.id != self._default))


def _guess(model: str) -> ModelOffer:
    embeds = "embed" in model.lower()
    return ModelOffer(id=model, tasks=("embeddings",) if embeds else ("chat",), tools=not embeds)


class _ResponseEvents:
    """The events of one response; an object and not a generator, so that it closes even if it was never read."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._splitter = EventSplitter()

    def __aiter__(self) -> _ResponseEvents:
        return self

    async def __anext__(self) -> list[bytes]:
        try:
            while chunk := await self._response.content.readany():
                if events := self._splitter.feed(chunk):
                    return events
        except (aiohttp.ClientError, OSError):
            raise LatticeError("runtime_failed", "The engine broke off its answer.") from None
        if events := self._splitter.flush():
            return events
        raise StopAsyncIteration

    async def aclose(self) -> None:
        finish(self._response)
