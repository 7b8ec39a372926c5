"""`/v1/credits`, `/v1/usage` and `/v1/ledger/entries`."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lattice.core.ids import Prefix, new_id
from lattice.gateway.api.access import caller, create, target_account
from lattice.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, page, require_cursor
from lattice.gateway.api.state import ApiState
from lattice.gateway.api.views import AccountId, CreditsView, EntryView, GrantBody, GrantView, Page, UsageView, WorkId
from lattice.gateway.identity import KeyRecord, Scope
from lattice.gateway.ledger import Grant, credits, grant, list_entries, list_usage


def router(state: ApiState) -> APIRouter:
    """The money routes."""
    api = APIRouter(tags=["credits"])
    reader, admin = caller(state, Scope.CREDITS_READ), caller(state, Scope.ADMIN)
    usage_reader = caller(state, Scope.USAGE_READ)

    @api.get("/v1/credits")
    async def read_credits(account: AccountId | None = None, record: KeyRecord = Depends(reader)) -> CreditsView:
        """The balance: what may be spent, and what is set aside for running work."""
        owner = target_account(record, account)
        return CreditsView.of(owner, await state.store.read(credits, owner))

    @api.post("/v1/credits/grants", status_code=201, response_model=GrantView)
    async def make_grant(request: Request, body: GrantBody, record: KeyRecord = Depends(admin)) -> Response:
        """Give an account credits; with an `idempotency-key`, once for ever."""

        def act(conn: Connection, reference: str | None) -> bytes:
            return _grant(conn, body, reference, state.clock.now_ms()).model_dump_json().encode()

        return await create(state, request, record, act)

    @api.get("/v1/usage")
    async def read_usage(
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        account: AccountId | None = None,
        record: KeyRecord = Depends(usage_reader),
    ) -> Page[UsageView]:
        """One line for each answer, newest first; work on one's own machine costs 0."""
        require_cursor(Prefix.USAGE, cursor)
        rows = await state.store.read(list_usage, target_account(record, account), cursor, limit + 1)
        return page(rows, limit, UsageView.of)

    @api.get("/v1/ledger/entries")
    async def read_entries(
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        account: AccountId | None = None,
        work: WorkId | None = None,
        record: KeyRecord = Depends(reader),
    ) -> Page[EntryView]:
        """The account's postings, newest first; `work` picks those of one work, or one worker."""
        require_cursor(Prefix.ENTRY, cursor)
        rows = await state.store.read(list_entries, target_account(record, account), cursor, limit + 1, work)
        return page(rows, limit, EntryView.of)

    return api


def _grant(conn: Connection, body: GrantBody, reference: str | None, now_ms: int) -> GrantView:
    given = Grant(
        account_id=body.account,
        amount_micro=body.amount_micro,
        reference=reference or new_id(Prefix.ENTRY, now_ms),
        now_ms=now_ms,
        reason=body.reason,
    )
    grant(conn, given)
    balance = credits(conn, body.account)
    return GrantView(
        account=body.account,
        available_micro=balance.available_micro,
        held_micro=balance.held_micro,
        amount_micro=body.amount_micro,
        reason=body.reason,
    )
