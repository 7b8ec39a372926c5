"""The worker's HTTP calls. `RelayDown` where repeating may help, a LatticeError where it cannot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, TypeVar

import aiohttp
import msgspec

from lattice import __version__
from lattice.core.errors import LatticeError
from lattice.core.worker_relay import (
    BUNDLE_MEDIA_TYPE,
    RECEIPT_HEADER,
    WORKER_POLL_HOLD_MS,
    WorkerFail,
    WorkerPoll,
    WorkerReply,
)
from lattice.runtime.http import TooLarge, finish, read_bounded
from lattice.runtime.transport import RelayDown, refusal
from lattice.runtime.worker.blobs import BlobWriter

T = TypeVar("T")

PATH = "/v1/relay/worker"
MAX_REPLY = 4 << 20
MAX_BODY = 4 << 30
PIECE = 1 << 20
_POLL_TIMEOUT = aiohttp.ClientTimeout(total=WORKER_POLL_HOLD_MS / 1000 + 15, sock_connect=10)
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
_BYTES_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


class WorkerLink:
    """Calls under one worker's credential."""

    def __init__(self, gateway: str, credential: str) -> None:
        self._base = gateway.rstrip("/").removesuffix("/v1") + PATH
        self._credential = credential
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WorkerLink:
        headers = {"Authorization": f"Bearer {self._credential}", "User-Agent": f"lattice-worker/{__version__}"}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=75), headers=headers, auto_decompress=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def poll(self, request: WorkerPoll) -> WorkerReply:
        """One poll; the gateway holds it while it has nothing to say."""
        data = await self._send("POST", "/poll", msgspec.json.encode(request), _POLL_TIMEOUT)
        return _decoded(data, WorkerReply)

    async def results(self, query: str, attempt: int, pieces: Iterable[bytes | memoryview], receipt: str) -> None:
        """Deliver results; the identical call may be repeated."""
        headers = {RECEIPT_HEADER: receipt, "Content-Type": BUNDLE_MEDIA_TYPE}
        params = {"query": query, "attempt": str(attempt)}
        await self._send("POST", "/results", b"".join(pieces), _BYTES_TIMEOUT, headers=headers, params=params)

    async def fail(self, failed: WorkerFail) -> None:
        """Say that an attempt ended without results."""
        await self._send("POST", "/fail", msgspec.json.encode(failed), _CALL_TIMEOUT)

    async def read(self, sha256: str) -> bytes:
        """A small blob, into memory."""
        data = await self._send("GET", f"/blobs/{sha256}", None, _BYTES_TIMEOUT, limit=MAX_BODY)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RelayDown("the gateway sent other bytes than those of the hash")
        return data

    async def download(self, sha256: str, writer: BlobWriter) -> None:
        """A blob of any size, into the cache."""
        async with self._request("GET", f"/blobs/{sha256}", None, _BYTES_TIMEOUT) as response:
            if response.status != 200:
                raise refusal(response, await read_bounded(response, MAX_REPLY))
            try:
                async for piece in response.content.iter_chunked(PIECE):
                    await writer.write(piece)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise RelayDown(type(error).__name__) from None

    def _request(self, method: str, path: str, body: bytes | None, timeout: aiohttp.ClientTimeout, **more: Any) -> Any:
        if self._session is None:
            raise RelayDown("the connection is closed")
        return self._session.request(
            method, self._base + path, data=body, timeout=timeout, allow_redirects=False, **more
        )

    async def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
        *,
        limit: int = MAX_REPLY,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> bytes:
        sent = {"Content-Type": "application/json", **(headers or {})} if body is not None else headers
        try:
            response = await self._request(method, path, body, timeout, headers=sent, params=params)
            try:
                data = await read_bounded(response, limit)
            finally:
                finish(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RelayDown(type(error).__name__) from None
        except TooLarge:
            raise RelayDown("the gateway's answer is too large") from None
        if response.status >= 300:
            raise refusal(response, data)
        return data


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RelayDown("the gateway's answer is not of this protocol") from None


def is_final(error: Exception) -> bool:
    """Whether the gateway has said a word that no repeat will change."""
    return isinstance(error, LatticeError)
