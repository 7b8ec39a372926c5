"""`/v1/accounts` (the operator's) and `/v1/account` (one's own)."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lattice.core.ids import Prefix
from lattice.gateway.api.access import caller, create
from lattice.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, page, require_cursor
from lattice.gateway.api.state import ApiState
from lattice.gateway.api.views import AccountView, NewAccountBody, Page
from lattice.gateway.identity import KeyRecord, Scope, create_account, get_account, list_accounts


def router(state: ApiState) -> APIRouter:
    """The account routes."""
    api = APIRouter(tags=["accounts"])
    anyone, admin = caller(state), caller(state, Scope.ADMIN)

    @api.get("/v1/account")
    async def read_own_account(record: KeyRecord = Depends(anyone)) -> AccountView:
        """The account that the key belongs to."""
        return AccountView.of(await state.store.read(get_account, record.account_id))

    @api.get("/v1/accounts")
    async def read_accounts(
        limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, record: KeyRecord = Depends(admin)
    ) -> Page[AccountView]:
        """Every account, newest first."""
        require_cursor(Prefix.ACCOUNT, cursor)
        return page(await state.store.read(list_accounts, cursor, limit + 1), limit, AccountView.of)

    @api.post("/v1/accounts", status_code=201, response_model=AccountView)
    async def make_account(request: Request, body: NewAccountBody, record: KeyRecord = Depends(admin)) -> Response:
        """Make an account. Give it a key with `POST /v1/api-keys` and credits with `POST /v1/credits/grants`."""

        def act(conn: Connection, _: str | None) -> bytes:
            row = create_account(conn, body.name, state.clock.now_ms())
            return AccountView.of(row).model_dump_json().encode()

        return await create(state, request, record, act)

    return api
