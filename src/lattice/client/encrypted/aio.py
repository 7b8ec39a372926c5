"""`AsyncQueryClient`: the asynchronous twin of `QueryClient`, method for method; long computations run in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx2

from lattice.client.construct import http_options
from lattice.client.drivers import AsyncDriver
from lattice.client.encrypted.query import AT_ONCE, new_session
from lattice.client.encrypted.results import EncryptedQuery, EncryptedResult
from lattice.client.encrypted.session import batches, joined
from lattice.client.encrypted.uploads import Progress, silent
from lattice.client.settings import path_segment

if TYPE_CHECKING:
    from lattice.fhe.answers import Answer


class AsyncKeys:
    """The user's keys for this model."""

    def __init__(self, client: AsyncQueryClient) -> None:
        self._client = client

    async def ensure(self, progress: Progress = silent, *, replace: bool = False) -> str:
        """As `QueryClient.keys.ensure`; `progress` is called from threads too."""
        client = self._client
        async with client._lock:
            return (await client._driver.run(client._session.ensure(progress, replace=replace))).evaluation_keys

    async def list(self) -> list[dict[str, Any]]:
        """What is registered for this user."""
        found = await self._client._driver.run(self._client._session.context.get_json("/evaluation-keys"))
        return list(found.get("data", []))

    async def delete(self, evaluation_keys: str) -> None:
        """Delete keys at the gateway; the secret stays here."""
        client = self._client
        await client._driver.run(client._session.context.delete(f"/evaluation-keys/{path_segment(evaluation_keys)}"))
        async with client._lock:
            client._session.forget_keys()


class AsyncQueryClient:
    """Asks one encrypted model with one access token, in one event loop. See `QueryClient`."""

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str | None = None,
        folder: Path | None = None,
        passphrase: str | None = None,
        wrapping_key: bytes | None = None,
        trust: Collection[bytes] | None = None,
        worker_identities: Collection[str] | None = None,
        timeout_s: float | None = None,
        max_retries: int = 2,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._session = new_session(
            token, base_url, folder, passphrase, wrapping_key, trust, worker_identities, timeout_s, max_retries
        )
        self._owned = http_client is None
        self._http = http_client or httpx2.AsyncClient(**http_options(self._session.context))
        self._driver = AsyncDriver(self._http)
        self._lock = asyncio.Lock()
        self.keys = AsyncKeys(self)

    async def model(self) -> dict[str, Any]:
        """What the token may query, and which keys that needs."""
        await self._ready(keys=False)
        assert self._session.model is not None
        return self._session.model.about

    async def encrypt(self, samples: Any, *, strict: bool = False) -> EncryptedQuery:
        """Encrypt at most one batch of samples."""
        await self._ready()
        return await self._driver.run(self._session.encrypt(samples, strict=strict))

    async def execute(
        self,
        query: EncryptedQuery,
        *,
        verify: int = 1,
        database: str | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> EncryptedResult:
        """Send ciphertexts and wait for the encrypted results."""
        await self._ready()
        return await self._driver.run(
            self._session.execute(
                query, verify=verify, database=database, idempotency_key=idempotency_key, timeout_s=timeout_s
            )
        )

    async def decrypt(self, result: EncryptedResult) -> Answer:
        """Values and labels."""
        await self._ready()
        return await self._driver.run(self._session.decrypt(result))

    async def query(
        self, samples: Any, *, strict: bool = False, verify: int = 1, database: str | None = None
    ) -> Answer:
        """Any number of samples: encrypted, asked in batches (several under way at a time), decrypted."""
        await self._ready()
        assert self._session.model is not None
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(batch: Any) -> Answer:
            async with room:
                plan = self._session.ask(batch, strict=strict, verify=verify, database=database)
                answer: Answer = await self._driver.run(plan)
                return answer

        parts = batches(self._session.model.view, samples, strict)
        return joined(await asyncio.gather(*(ask(part) for part in parts)))

    async def upload_database(self, rows: Any, progress: Progress = silent) -> str:
        """Encrypt rows and upload them once; pass the id to `query(…, database=…)`."""
        await self._ready()
        return await self._driver.run(self._session.upload_database(rows, progress))

    async def cancel(self, query_id: str) -> dict[str, Any]:
        """Cancel a query that has not been answered."""
        return await self._driver.run(self._session.context.delete(f"/encrypted-queries/{path_segment(query_id)}"))

    async def close(self) -> None:
        """Wipe the secret from memory and close the connections that this client opened."""
        self._session.close()
        if self._owned:
            await self._http.aclose()

    async def _ready(self, keys: bool = True) -> None:
        session = self._session
        if session.model is None or (keys and session.keys is None):
            async with self._lock:
                await self._driver.run(session.view())
                if keys:
                    await self._driver.run(session.ensure())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._session.context.origin!r})"
