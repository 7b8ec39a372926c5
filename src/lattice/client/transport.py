"""End-to-end sealing for OpenAI's own SDK, in one line:

    OpenAI(base_url=…, api_key=…, http_client=httpx2.Client(transport=lattice.SealedTransport()))

Chat and embeddings for `lattice:personal:…` models are sealed to the named machine; the SDK sees ordinary responses.
Every other request passes through untouched. `response.extensions["lattice"]` holds the provenance and the receipt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2

from lattice.client.context import Context, Records
from lattice.client.disk import disk_key_store
from lattice.client.drivers import AsyncDriver, Driver
from lattice.client.exchange import Plan
from lattice.client.faults import broken
from lattice.client.inference import SealedReply, open_sealed, read_sealed
from lattice.client.openai_wire import (
    Target,
    error_response,
    may_be_personal,
    provenance_headers,
    sealed_target,
    whole_response,
)
from lattice.client.relay_sse import SseRelay
from lattice.client.retry import NOT_DELIVERED, RetryPolicy
from lattice.client.store import KeyStore
from lattice.core.clock import Clock, SystemClock
from lattice.core.errors import LatticeError
from lattice.core.origin import origin_of

_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)


class _Sealing:
    """What both transports share: the key store, the records, and the steps that do no I/O."""

    def __init__(self, store: KeyStore | Path | None, clock: Clock | None) -> None:
        self._store = store if isinstance(store, KeyStore) else disk_key_store(store)
        self._clock = clock or SystemClock()
        self._records = Records()

    def context(self, target: Target) -> Context:
        """The caller of one request. Error answers are left to OpenAI's SDK to repeat; broken connections are ours."""
        return Context(
            root=target.root,
            origin=origin_of(target.root),
            headers=target.headers,
            store=self._store,
            policy=RetryPolicy(retry_answers=False),
            clock=self._clock,
            records=self._records,
        )


def _exchange(context: Context, target: Target) -> Plan[tuple[SealedReply, bytes | None]]:
    """Seal, send, and read what is not a stream: the reply, and its whole payload unless it is one."""
    reply = yield from open_sealed(context, target.ask)
    if target.ask.streamed and not reply.reader.refused:
        return reply, None
    return reply, (yield from read_sealed(reply))


def _respond(
    request: httpx2.Request, reply: SealedReply, payload: bytes | None, stream: type[_SyncBody] | type[_AsyncBody]
) -> httpx2.Response:
    if payload is not None:
        return whole_response(payload, reply.reader, reply.provenance, request)
    return httpx2.Response(
        200,
        headers={**provenance_headers(reply.provenance), "content-type": "text/event-stream; charset=utf-8"},
        stream=stream(reply),
        request=request,
        extensions={"lattice": reply.provenance},
    )


def _refuse(request: httpx2.Request, error: LatticeError) -> httpx2.Response:
    """An error response; where nothing was sent at all, the connection failure itself, which is safe to repeat."""
    if isinstance(error.__cause__, NOT_DELIVERED):
        raise error.__cause__
    return error_response(error, request)


def _timeout(request: httpx2.Request) -> httpx2.Timeout | None:
    given = request.extensions.get("timeout")
    return httpx2.Timeout(**given) if given else None


class _SyncBody(httpx2.SyncByteStream):
    def __init__(self, reply: SealedReply) -> None:
        self._answer = reply.answer
        self._relay = SseRelay(reply)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._relay.first()
        while not self._relay.ended:
            try:
                chunk = next(self._answer.chunks, b"")
            except httpx2.RequestError as failure:
                yield self._relay.fail(broken(failure))
            else:
                yield from self._relay.take(chunk)

    def close(self) -> None:
        self._answer.response.close()


class _AsyncBody(httpx2.AsyncByteStream):
    def __init__(self, reply: SealedReply) -> None:
        self._answer = reply.answer
        self._relay = SseRelay(reply)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self._relay.first():
            yield event
        while not self._relay.ended:
            try:
                chunk = await anext(self._answer.chunks, b"")
            except httpx2.RequestError as failure:
                yield self._relay.fail(broken(failure))
            else:
                for event in self._relay.take(chunk):
                    yield event

    async def aclose(self) -> None:
        await self._answer.response.aclose()


class SealedTransport(httpx2.BaseTransport):
    """Seals work for named machines under `inner` (an ordinary `HTTPTransport` by default)."""

    def __init__(
        self,
        store: KeyStore | Path | None = None,
        *,
        inner: httpx2.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._sealing = _Sealing(store, clock)
        self._inner = inner or httpx2.HTTPTransport(limits=_LIMITS)
        self._http = httpx2.Client(transport=self._inner, trust_env=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Seal and answer, or pass on."""
        if not may_be_personal(request):
            return self._inner.handle_request(request)
        try:
            target = sealed_target(request, request.read())
            if target is None:
                return self._inner.handle_request(request)
            driver = Driver(self._http, timeout=_timeout(request))
            return _respond(request, *driver.run(_exchange(self._sealing.context(target), target)), _SyncBody)
        except LatticeError as error:
            return _refuse(request, error)

    def close(self) -> None:
        """Close the inner transport."""
        self._http.close()


class AsyncSealedTransport(httpx2.AsyncBaseTransport):
    """The asynchronous twin of `SealedTransport`, for `AsyncOpenAI` and `httpx2.AsyncClient`."""

    def __init__(
        self,
        store: KeyStore | Path | None = None,
        *,
        inner: httpx2.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._sealing = _Sealing(store, clock)
        self._inner = inner or httpx2.AsyncHTTPTransport(limits=_LIMITS)
        self._http = httpx2.AsyncClient(transport=self._inner, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Seal and answer, or pass on."""
        if not may_be_personal(request):
            return await self._inner.handle_async_request(request)
        try:
            target = sealed_target(request, await request.aread())
            if target is None:
                return await self._inner.handle_async_request(request)
            driver = AsyncDriver(self._http, timeout=_timeout(request))
            context = self._sealing.context(target)
            return _respond(request, *(await driver.run(_exchange(context, target))), _AsyncBody)
        except LatticeError as error:
            return _refuse(request, error)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._http.aclose()
