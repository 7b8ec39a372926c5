"""`AsyncComputeClient`: the asynchronous twin of `ComputeClient`, method for method; a test compares the signatures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from lattice.client import account, inference, personal
from lattice.client.construct import http_options, new_context
from lattice.client.context import Context
from lattice.client.drivers import AsyncDriver
from lattice.client.records import PersonalRuntime
from lattice.client.requests import Ask, chat_body, embeddings_body, make_ask
from lattice.client.results import ChatResult, EmbeddingsResult, Page, SealingMode
from lattice.client.store import KeyStore
from lattice.client.stream import AsyncChatStream, open_stream
from lattice.core.clock import Clock
from lattice.core.models import personal_model


class AsyncComputeClient:
    """Talks to one gateway with one key. Belongs to one event loop; close it, or use it in an `async with` block.

    Settings come from the arguments, then `LATTICE_BASE_URL` and `LATTICE_API_KEY`. Failures raise `LatticeError`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        store: KeyStore | Path | None = None,
        timeout_s: float | None = None,
        max_retries: int = 2,
        http_client: httpx2.AsyncClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._context: Context = new_context(base_url, api_key, store, timeout_s, max_retries, clock)
        self._owned = http_client is None
        self._http = http_client or httpx2.AsyncClient(**http_options(self._context))
        self._driver = AsyncDriver(self._http)

    @property
    def base_url(self) -> str:
        """The gateway's address."""
        return self._context.root.removesuffix("/v1")

    async def list_personal_runtimes(self) -> list[PersonalRuntime]:
        """Every machine of the account, each with this app's own judgement in `trust`."""
        return await self._driver.run(personal.list_all(self._context))

    async def list_reachable_personal_runtimes(self) -> list[PersonalRuntime]:
        """The machines whose daemon polls now."""
        return await self._driver.run(personal.list_all(self._context, reachable_only=True))

    async def get_personal_runtime(self, runtime_id: str) -> PersonalRuntime:
        """One machine. A wrong pairing proof or a changed identity key raises."""
        return await self._driver.run(personal.fetch(self._context, runtime_id))

    async def create_personal_runtime(self, name: str) -> PersonalRuntime:
        """Make an unpaired record; then `bootstrap_personal_runtime`."""
        return await self._driver.run(personal.create(self._context, name))

    async def bootstrap_personal_runtime(self, runtime_id: str) -> str:
        """The string for `lattice-ctl relay connect` on the machine. Good once, for ten minutes; shown only here."""
        return await self._driver.run(personal.bootstrap(self._context, runtime_id))

    async def verify_pairing(self, runtime_id: str) -> PersonalRuntime:
        """Check the pairing proof of a machine that was bootstrapped here, and pin its identity key.

        A missing or wrong proof raises `pairing_invalid`. Look at `trust` for the other states.
        """
        return await self._driver.run(personal.fetch(self._context, runtime_id))

    async def confirm_fingerprint(self, runtime_id: str, words: str) -> PersonalRuntime:
        """Pin a machine that was paired elsewhere, by the words that `lattice-ctl status` shows on it."""
        return await self._driver.run(personal.confirm_fingerprint(self._context, runtime_id, words))

    async def revoke_personal_runtime(self, runtime_id: str) -> PersonalRuntime:
        """Revoke a machine and forget its pin."""
        return await self._driver.run(personal.revoke(self._context, runtime_id))

    async def chat_complete(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        sealing: SealingMode | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> ChatResult:
        """Ask, and wait for the whole answer. `options` are OpenAI's and pass through as they are."""
        body = chat_body(model, messages, options, stream=False)
        ask = make_ask("chat", body, sealing=sealing, idempotency_key=idempotency_key, timeout_s=timeout_s)
        return ChatResult(*await self._driver.run(inference.complete(self._context, ask)))

    async def chat_complete_for_personal_runtime(
        self,
        runtime_id: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        sealing: SealingMode = "end_to_end",
        local_model: str | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> ChatResult:
        """Ask one machine. The default mode is `end_to_end`: the gateway sees routing metadata only."""
        return await self.chat_complete(
            personal_model(runtime_id, local_model),
            messages,
            sealing=sealing,
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
            **options,
        )

    async def chat_stream(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        sealing: SealingMode | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> AsyncChatStream:
        """Ask, and iterate over the answer as it is made."""
        body = chat_body(model, messages, options, stream=True)
        ask = make_ask("chat", body, sealing=sealing, idempotency_key=idempotency_key, timeout_s=timeout_s)
        return await self._stream(ask)

    async def chat_stream_for_personal_runtime(
        self,
        runtime_id: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        sealing: SealingMode = "end_to_end",
        local_model: str | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> AsyncChatStream:
        """Ask one machine, and iterate over the answer as it is made."""
        return await self.chat_stream(
            personal_model(runtime_id, local_model),
            messages,
            sealing=sealing,
            idempotency_key=idempotency_key,
            timeout_s=timeout_s,
            **options,
        )

    async def embeddings(
        self,
        model: str,
        input: Any,
        *,
        sealing: SealingMode | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
        **options: Any,
    ) -> EmbeddingsResult:
        """Vectors for a text or a list of texts."""
        body = embeddings_body(model, input, options)
        ask = make_ask("embeddings", body, sealing=sealing, idempotency_key=idempotency_key, timeout_s=timeout_s)
        return EmbeddingsResult(*await self._driver.run(inference.complete(self._context, ask)))

    async def models(self) -> list[dict[str, Any]]:
        """The models that the key may use."""
        return await self._driver.run(account.models(self._context))

    async def key(self) -> dict[str, Any]:
        """What the key is and may do."""
        return await self._driver.run(self._context.get_json("/key"))

    async def credits(self) -> dict[str, Any]:
        """The account's balance and holds, in micro-credits."""
        return await self._driver.run(self._context.get_json("/credits"))

    def usage(self, *, limit: int = 100) -> AsyncIterator[dict[str, Any]]:
        """Every usage record, newest first; pages of `limit` are fetched as the iteration goes on."""
        return self._every("/usage", limit)

    def ledger_entries(self, *, work: str | None = None, limit: int = 100) -> AsyncIterator[dict[str, Any]]:
        """Every ledger entry, newest first, or those of one work; fetched in pages of `limit` on the way."""
        return self._every("/ledger/entries", limit, work=work)

    async def page(self, path: str, *, cursor: str | None = None, limit: int = 100, **filters: str | None) -> Page:
        """One page of a list route (such as `/ledger/entries`), for callers that keep the cursor themselves."""
        return await self._driver.run(account.page(self._context, path, cursor, limit, filters))

    async def close(self) -> None:
        """Close the connections that this client opened."""
        if self._owned:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._context.origin!r})"

    async def _stream(self, ask: Ask) -> AsyncChatStream:
        return AsyncChatStream(*await self._driver.run(open_stream(self._context, ask)))

    async def _every(self, path: str, limit: int, **filters: str | None) -> AsyncIterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = await self.page(path, cursor=cursor, limit=limit, **filters)
            for item in page.data:
                yield item
            if (cursor := page.next_cursor) is None:
                return
