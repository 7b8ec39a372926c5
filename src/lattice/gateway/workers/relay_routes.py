"""The workers' four routes: poll, blobs, results and fail (`lattice.core.worker_relay`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from lattice.core.errors import LatticeError
from lattice.core.worker_relay import RECEIPT_HEADER, WORKER_PROTOCOL, WorkerFail, WorkerPoll
from lattice.gateway.encrypted.access import announced_size, body_pieces
from lattice.gateway.http.dispatch import read_parameters
from lattice.gateway.http.exchange import ClientGone
from lattice.gateway.http.openapi import query_parameter
from lattice.gateway.queries.rows import QueryRow
from lattice.gateway.workers.rows import WorkerRow

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

T = TypeVar("T")

POLL = "/v1/relay/worker/poll"
RESULTS = "/v1/relay/worker/results"
_RESULTS = {
    "parameters": [
        query_parameter("query", {"type": "string"}, required=True),
        query_parameter("attempt", {"type": "integer", "minimum": 0}, required=True),
    ]
}
_MAX_NAME = 64
_encode = msgspec.json.Encoder().encode


class WorkerEndpoints:
    """The calls under a worker's credential."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._service = gateway, gateway.workers.service

    async def poll(self, request: Request) -> Response:
        """Say what the worker does; hear what it shall do, and for how long it is paid."""
        worker = await self._worker(request, stopped=True)
        said = await _read(request, WorkerPoll)
        if said.protocol != WORKER_PROTOCOL:
            raise LatticeError("protocol_unsupported", details={"supported": [WORKER_PROTOCOL]})
        if not 1 <= len(said.session) <= _MAX_NAME or len(said.identity) > _MAX_NAME:
            raise LatticeError("invalid_request", f"A session's name has 1 to {_MAX_NAME} characters.")

        async def held(wait: Awaitable[None]) -> bool:
            return await _held(request, wait)

        reply = await self._service.polls.answer(worker, said, held)
        if reply is None:
            raise ClientGone
        return Response(_encode(reply), media_type="application/json")

    async def blob(self, request: Request, sha256: str) -> Response:
        """Bytes of the worker's model, or of a query that it has leased."""
        worker, blobs = await self._worker(request), self._gateway.encrypted.blobs
        try:
            wanted = bytes.fromhex(sha256)
        except ValueError:
            wanted = b""
        if len(wanted) != 32:
            raise LatticeError("invalid_request", "A blob is named by its SHA-256 in hex.")
        await self._service.deliveries.require_blob(worker, wanted)
        size = await blobs.size(wanted)
        if size is None:
            raise LatticeError("not_found", "The gateway does not have these bytes any more.")
        headers = {"content-length": str(size)}
        return StreamingResponse(blobs.stream(wanted), media_type="application/octet-stream", headers=headers)

    async def results(self, request: Request) -> Response:
        """Deliver a query's results: a bundle, and the receipt in a header."""
        worker, given = await self._worker(request), read_parameters(request, _Given)
        receipt = request.headers.get(RECEIPT_HEADER, "")
        body, size = body_pieces(request, self._gateway.settings.body_seconds), announced_size(request)
        row = await self._service.deliveries.results(worker, given.query, given.attempt, receipt, body, size)
        return _ended(row)

    async def fail(self, request: Request) -> Response:
        """End an attempt without results."""
        worker = await self._worker(request)
        return _ended(await self._service.deliveries.fail(worker, await _read(request, WorkerFail)))

    async def _worker(self, request: Request, *, stopped: bool = False) -> WorkerRow:
        authorization = request.headers.get("authorization")
        return await self._gateway.workers.credentials.authenticate(authorization, stopped=stopped)


class _Given(msgspec.Struct, frozen=True):
    """The query parameters of results."""

    query: str
    attempt: Annotated[int, msgspec.Meta(ge=0)]


def router(endpoints: WorkerEndpoints) -> APIRouter:
    """The routes. Those that are called past it (`http.dispatch.direct`) are described here."""
    api = APIRouter(tags=["worker relay"])
    api.post(POLL)(endpoints.poll)
    api.get("/v1/relay/worker/blobs/{sha256}", response_class=StreamingResponse)(endpoints.blob)
    api.post(RESULTS, openapi_extra=_RESULTS)(endpoints.results)
    api.post("/v1/relay/worker/fail")(endpoints.fail)
    return api


def _ended(row: QueryRow) -> Response:
    return Response(_encode({"query": row.id, "state": row.state}), media_type="application/json")


async def _read(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise LatticeError("invalid_request", "The body is not a worker's message of this protocol.") from None


async def _held(request: Request, wait: Awaitable[None]) -> bool:
    """Wait; True where the worker hung up meanwhile, so that there is nobody to answer."""
    waiting = asyncio.ensure_future(wait)
    gone = asyncio.ensure_future(hung_up(request))
    try:
        await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
        return gone.done() and not waiting.done()
    finally:
        for task in (waiting, gone):
            task.cancel()


async def hung_up(request: Request) -> None:
    """Return once the caller has gone away. Only after the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
