"""Who may ask about which account: everybody about their own, the operator about any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lattice.gateway import idempotency
from lattice.gateway.api.credentials import Caller, request_guard
from lattice.gateway.api.state import ApiState
from lattice.gateway.identity import KeyRecord, Scope


def caller(state: ApiState, scope: Scope | None = None) -> Callable[[Request], Awaitable[KeyRecord]]:
    """A dependency: the live key that asks, with `scope` where one is needed."""

    async def dependency(request: Request) -> KeyRecord:
        record = await state.authenticate(request)
        if scope is not None:
            record.require_scope(scope)
        return record

    return dependency


def target_account(record: KeyRecord, account: str | None) -> str:
    """The account meant: one's own, unless an administrator names another."""
    if account is None or account == record.account_id:
        return record.account_id
    record.require_scope(Scope.ADMIN)
    return account


async def create(
    state: ApiState, request: Request, record: Caller, act: Callable[[Connection, str | None], bytes]
) -> Response:
    """Run a POST that creates something: once for each `idempotency-key`, its answer replayed for a day.

    `act` gets the connection and a stable name of the request, None where it sent no key; it returns the 201's body.
    """
    given = request_guard(
        state.pepper, record, f"{request.method} {request.url.path}", request.headers, await request.body()
    )
    reference = None if given is None else given.claim.scope_hash.hex()

    def write(conn: Connection) -> tuple[int, bytes]:
        return idempotency.once(conn, given, state.clock.now_ms(), lambda conn: (201, act(conn, reference)))

    status, body = await state.store.write(write)
    return Response(body, status, media_type="application/json")
