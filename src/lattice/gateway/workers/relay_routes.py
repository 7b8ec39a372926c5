"""The workers' four routes: poll, blobs, results and fail (`lattice.core.worker_relay`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from lattice.core.errors import LatticeError
from lattice.core.worker_relay import RECEIPT_HEADER, WORKER_PROTOCOL, WorkerFail, WorkerPoll
from lattice.gateway.encrypted.access import announced_size, body_pieces
from lattice.gateway.http.exchange import ClientGone
from lattice.gateway.workers.rows import WorkerRow

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

T = TypeVar("T")

RESULTS = "/v1/relay/worker/results"
_MAX_NAME = 64
_encode = msgspec.json.Encoder().encode


def router(gateway: Gateway) -> APIRouter:
    """The routes under a worker's credential."""
    api = APIRouter(tags=["worker relay"])
    service = gateway.workers.service

    @api.post("/v1/relay/worker/poll")
    async def poll(request: Request) -> Response:
        """Say what the worker does; hear what it shall do, and for how long it is paid."""
        worker = await _worker(gateway, request, stopped=True)
        said = await _read(request, WorkerPoll)
        if said.protocol != WORKER_PROTOCOL:
            raise LatticeError("protocol_unsupported", details={"supported": [WORKER_PROTOCOL]})
        if not 1 <= len(said.session) <= _MAX_NAME or len(said.identity) > _MAX_NAME:
            raise LatticeError("invalid_request", f"A session's name has 1 to {_MAX_NAME} characters.")

        async def held(wait: Awaitable[None]) -> bool:
            return await _held(request, wait)

        reply = await service.polls.answer(worker, said, held)
        if reply is None:
            raise ClientGone
        return Response(_encode(reply), media_type="application/json")

    @api.get("/v1/relay/worker/blobs/{sha256}", response_class=StreamingResponse)
    async def blob(request: Request, sha256: str) -> Response:
        """Bytes of the worker's model, or of a query that it has leased."""
        worker = await _worker(gateway, request)
        try:
            wanted = bytes.fromhex(sha256)
        except ValueError:
            wanted = b""
        if len(wanted) != 32:
            raise LatticeError("invalid_request", "A blob is named by its SHA-256 in hex.")
        await service.deliveries.require_blob(worker, wanted)
        size = await gateway.encrypted.blobs.size(wanted)
        if size is None:
            raise LatticeError("not_found", "The gateway does not have these bytes any more.")
        headers = {"content-length": str(size)}
        pieces = gateway.encrypted.blobs.stream(wanted)
        return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)

    @api.post(RESULTS)
    async def results(request: Request, query: str, attempt: int = Query(ge=0)) -> Response:
        """Deliver a query's results: a bundle, and the receipt in a header."""
        worker = await _worker(gateway, request)
        receipt = request.headers.get(RECEIPT_HEADER, "")
        body = body_pieces(request, gateway.settings.body_seconds)
        row = await service.deliveries.results(worker, query, attempt, receipt, body, announced_size(request))
        return Response(_encode({"query": row.id, "state": row.state}), media_type="application/json")

    @api.post("/v1/relay/worker/fail")
    async def fail(request: Request) -> Response:
        """End an attempt without results."""
        worker = await _worker(gateway, request)
        row = await service.deliveries.fail(worker, await _read(request, WorkerFail))
        return Response(_encode({"query": row.id, "state": row.state}), media_type="application/json")

    return api


async def _worker(gateway: Gateway, request: Request, *, stopped: bool = False) -> WorkerRow:
    return await gateway.workers.credentials.authenticate(request.headers.get("authorization"), stopped=stopped)


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
