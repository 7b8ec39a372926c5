"""`/v1/encrypted-queries` and `/v1/encrypted-databases`: ciphertexts in, ciphertexts out, under an access token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response, StreamingResponse

from lattice.core.ids import Prefix
from lattice.core.worker_relay import BUNDLE_MEDIA_TYPE
from lattice.gateway.api.access import create
from lattice.gateway.api.credentials import request_guard
from lattice.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, page, require_cursor
from lattice.gateway.api.views import Page
from lattice.gateway.encrypted.access import announced_size, authenticate_token, body_pieces
from lattice.gateway.encrypted.token_rows import TokenRecord
from lattice.gateway.encrypted.upload_rows import complete_upload
from lattice.gateway.http.dispatch import read_parameters
from lattice.gateway.http.exchange import ClientGone
from lattice.gateway.http.openapi import query_parameter
from lattice.gateway.idempotency import Guard
from lattice.gateway.queries import desk, spending
from lattice.gateway.queries.databases import add_database, delete_database, list_databases, new_database
from lattice.gateway.queries.desk import Body, Taken
from lattice.gateway.queries.rows import QueryRow, get_query, list_queries
from lattice.gateway.queries.shape import BundleShape
from lattice.gateway.queries.target import Wanted
from lattice.gateway.queries.views import (
    DatabaseList,
    DatabaseView,
    NewDatabaseBody,
    QueryView,
    failure,
    result_headers,
)
from lattice.gateway.workers.relay_routes import hung_up

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

SUBMIT = "/v1/encrypted-queries"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BUNDLE: dict[int | str, dict[str, Any]] = {200: {"content": {BUNDLE_MEDIA_TYPE: _BINARY}}}
_ASKED = {
    "parameters": [
        query_parameter("evaluation_keys", {"type": "string"}),
        query_parameter("wait", {"type": "string", "enum": ["0", "1"], "default": "1"}),
        query_parameter("verify", {"type": "string", "enum": ["1", "2"], "default": "1"}),
        query_parameter("database", {"type": "string"}),
        query_parameter("version", {"type": "integer", "minimum": 1}),
    ]
}
_QUIET_SECONDS = 15.0
PASSED_SECONDS = 1.0
MAX_PASSED = 10_000


class _Asked(msgspec.Struct, frozen=True):
    """The query parameters of a submission."""

    evaluation_keys: str | None = None
    wait: Literal["0", "1"] = "1"
    verify: Literal["1", "2"] = "1"
    database: str | None = None
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None


def router(gateway: Gateway, counter: QueryCounter) -> APIRouter:
    """The token holder's routes for queries."""
    api = APIRouter(tags=["encrypted queries"])

    api.post(SUBMIT, responses={**_BUNDLE, 202: {"model": QueryView}}, openapi_extra=_ASKED)(counter.submit)

    @api.get(SUBMIT)
    async def read_queries(request: Request, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Page[QueryView]:
        """The token's queries, newest first."""
        token = await authenticate_token(gateway, request)
        require_cursor(Prefix.QUERY, cursor)
        rows = await gateway.store.read(list_queries, token.id, cursor, limit + 1)
        return page(rows, limit, QueryView.of)

    @api.get(SUBMIT + "/{query}")
    async def read_query(request: Request, query: str) -> QueryView:
        """One query."""
        token = await authenticate_token(gateway, request)
        return QueryView.of(await gateway.store.read(get_query, query, token.id))

    @api.get(SUBMIT + "/{query}/result", response_class=StreamingResponse, responses={**_BUNDLE, 202: {}})
    async def read_result(request: Request, query: str) -> Response:
        """The result, as often as asked for while it is kept; 202 while there is none, an error where there is none."""
        token = await authenticate_token(gateway, request)
        row = await gateway.store.read(get_query, query, token.id)
        return JSONResponse(QueryView.of(row).model_dump(), 202) if row.open else counter.result(row)

    @api.get(SUBMIT + "/{query}/events", response_class=StreamingResponse)
    async def read_events(request: Request, query: str) -> Response:
        """Server-sent events: the query's record now and at every change, until it has ended."""
        token = await authenticate_token(gateway, request)
        row = await gateway.store.read(get_query, query, token.id)
        return StreamingResponse(counter.events(row), media_type="text/event-stream")

    @api.delete(SUBMIT + "/{query}")
    async def cancel(request: Request, query: str) -> QueryView:
        """Cancel a query that has not ended."""
        token = await authenticate_token(gateway, request)
        return QueryView.of(await counter.cancel(query, token.id))

    _add_databases(api, gateway)
    return api


class QueryCounter:
    """What the routes share: taking a query in, waiting for it, handing its result out."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._passed: dict[tuple[str, Wanted], float] = {}

    async def submit(self, request: Request) -> Response:
        """Run a query. With `wait=1` the answer is the result, with `wait=0` the query's record, to be asked again.

        `version` is the one that the ciphertexts were made for; one that gives the same answers may take its place.
        """
        begun = time.perf_counter()
        token, asked = await authenticate_token(self._gateway, request), read_parameters(request, _Asked)
        wanted = Wanted(
            evaluation_keys=asked.evaluation_keys,
            verify=int(asked.verify),
            database=asked.database,
            version=asked.version,
        )
        taken = await self.take(request, token, wanted)
        body_ms = (time.perf_counter() - begun) * 1000
        if asked.wait == "0":
            return JSONResponse(QueryView.of(taken.row).model_dump(), 202)
        row = await self.wait(request, taken)
        return self.result(row, body_ms, (time.perf_counter() - begun) * 1000)

    async def take(self, request: Request, token: TokenRecord, wanted: Wanted) -> Taken:
        """Check, then stream the body into the blob store, then queue, or lease to a worker that waits."""
        gateway, shape, route = self._gateway, BundleShape(), f"POST {SUBMIT}"
        early = request_guard(gateway.pepper, token, route, request.headers, b"")
        await self._admit(token, wanted, early)

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in body_pieces(request, gateway.settings.body_seconds):
                shape.feed(piece)
                yield piece

        most = gateway.settings.max_query_bytes
        blob = await gateway.encrypted.blobs.put_any(pieces(), announced_size(request), most)
        shape.finish()
        guard = request_guard(gateway.pepper, token, route, request.headers, wanted.mac_body(blob.sha256))
        board = gateway.workers.service.switchboard
        now = board.clock.now_ms()  # the clock by which leases and deadlines are swept
        until = now + int(gateway.settings.execution_seconds * 1000)
        body = Body(blob.sha256, blob.bytes)
        with board.seat(token.model_id) as seat:
            taken = await gateway.store.write(desk.submit, token, wanted, body, guard, now, until, seat)
            if seat is not None and taken.leased is not None:
                board.leased(seat.worker_id, [taken.leased])
        if not taken.again and taken.leased is None:
            gateway.workers.queued(taken.row)
        return taken

    async def _admit(self, token: TokenRecord, wanted: Wanted, guard: Guard | None) -> None:
        """Before a byte of the body is read; `submit` checks again, so what passed a moment ago may pass."""
        now, name = time.monotonic(), (token.id, wanted)
        if now - self._passed.get(name, -PASSED_SECONDS) < PASSED_SECONDS:
            return
        await self._gateway.store.read(desk.admit, token, wanted, guard, self._gateway.clock.now_ms())
        if len(self._passed) >= MAX_PASSED:
            self._passed.clear()
        self._passed[name] = now

    async def wait(self, request: Request, taken: Taken) -> QueryRow:
        """The query when it has ended. A caller that goes away cancels it, unless an idempotency key can ask again."""
        gateway = self._gateway
        waiting = asyncio.ensure_future(gateway.workers.board.ended(taken.row, gateway.settings.execution_seconds + 5))
        gone = asyncio.ensure_future(hung_up(request))
        try:
            await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if "idempotency-key" not in request.headers:
                await self.cancel(taken.row.id, taken.row.token_id)
            raise ClientGone
        finally:
            for task in (waiting, gone):
                task.cancel()

    async def cancel(self, query_id: str, token_id: str) -> QueryRow:
        """End it and tell whoever works on it."""
        gateway = self._gateway
        row = await gateway.store.write(spending.cancel, query_id, token_id, gateway.clock.now_ms())
        gateway.workers.service.switchboard.cancel(row)
        return row

    def result(self, row: QueryRow, body_ms: float | None = None, total_ms: float | None = None) -> Response:
        """The stored bundle, or the reason why there is none."""
        if row.state != "completed" or row.output_sha256 is None:
            raise failure(row)
        headers = result_headers(row, body_ms, total_ms)
        data = self._gateway.encrypted.blobs.take_recent(row.output_sha256)
        if data is not None:
            return Response(data, media_type=BUNDLE_MEDIA_TYPE, headers=headers)
        headers["content-length"] = str(row.output_bytes)
        pieces = self._gateway.encrypted.blobs.stream(row.output_sha256)
        return StreamingResponse(pieces, media_type=BUNDLE_MEDIA_TYPE, headers=headers)

    async def events(self, row: QueryRow) -> AsyncIterator[bytes]:
        """The record at every change."""
        said = time.monotonic()
        yield _event(row)
        while row.open:
            after = await self._gateway.workers.board.next_change(row)
            if (after.state, after.attempt) != (row.state, row.attempt):
                yield _event(after)
                said = time.monotonic()
            elif time.monotonic() - said > _QUIET_SECONDS:
                yield b": keep-alive\n\n"
                said = time.monotonic()
            row = after


def _event(row: QueryRow) -> bytes:
    return f"event: {row.state}\ndata: {QueryView.of(row).model_dump_json()}\n\n".encode()


def _add_databases(api: APIRouter, gateway: Gateway) -> None:
    @api.post("/v1/encrypted-databases", status_code=201, response_model=DatabaseView)
    async def make_database(request: Request, body: NewDatabaseBody) -> Response:
        """Keep an uploaded bundle of ciphertexts to query again and again."""
        token = await authenticate_token(gateway, request)
        user = token.require_user()

        def act(conn: Connection, _: str | None) -> bytes:
            upload = complete_upload(conn, token.account_id, body.upload_id, ("database",), token.id)
            now = gateway.clock.now_ms()
            row = new_database(token.account_id, token.model_id, user, upload.sha256, upload.size, now)
            return DatabaseView.of(add_database(conn, row)).model_dump_json().encode()

        return await create(gateway, request, token, act)

    @api.get("/v1/encrypted-databases")
    async def read_databases(request: Request) -> DatabaseList:
        """The user's databases for this model, newest first."""
        token = await authenticate_token(gateway, request)
        rows = await gateway.store.read(list_databases, token.model_id, token.require_user())
        return DatabaseList(data=[DatabaseView.of(row) for row in rows])

    @api.delete("/v1/encrypted-databases/{database}", status_code=204)
    async def remove_database(request: Request, database: str) -> Response:
        """Delete a database. Queries that wait fail with `database_missing`; one that a worker has is finished."""
        token = await authenticate_token(gateway, request)
        now = gateway.clock.now_ms()
        ended = await gateway.store.write(delete_database, token.model_id, token.require_user(), database, now)
        for row in ended:
            gateway.workers.board.changed(row)
        return Response(status_code=204)
