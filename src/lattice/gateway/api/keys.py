"""`/v1/key` (the key that asks) and `/v1/api-keys`."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, is_id
from lattice.gateway.api.access import caller, create, target_account
from lattice.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, page, require_cursor
from lattice.gateway.api.state import ApiState
from lattice.gateway.api.views import AccountId, KeyView, NewKeyBody, NewKeyView, OwnKeyView, Page, key_members
from lattice.gateway.identity import (
    DEFAULT_SCOPES,
    KeyRecord,
    NewKey,
    Scope,
    create_key,
    get_account,
    list_keys,
    revoke_key,
)
from lattice.gateway.ledger import key_spend


def router(state: ApiState) -> APIRouter:
    """The key routes."""
    api = APIRouter(tags=["keys"])
    anyone, manager = caller(state), caller(state, Scope.KEYS_MANAGE)

    @api.get("/v1/key")
    async def read_own_key(record: KeyRecord = Depends(anyone)) -> OwnKeyView:
        """What this key may do, and what it has spent."""
        spent = await state.store.read(key_spend, record.id)
        return OwnKeyView(**key_members(record), spent_micro=spent)

    @api.get("/v1/api-keys")
    async def read_keys(
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        account: AccountId | None = None,
        record: KeyRecord = Depends(manager),
    ) -> Page[KeyView]:
        """The account's keys, revoked ones too, newest first."""
        require_cursor(Prefix.KEY, cursor)
        rows = await state.store.read(list_keys, target_account(record, account), cursor, limit + 1)
        return page(rows, limit, KeyView.of)

    @api.post("/v1/api-keys", status_code=201, response_model=NewKeyView)
    async def make_key(request: Request, body: NewKeyBody, record: KeyRecord = Depends(manager)) -> Response:
        """Make a key. It may do at most what the key that makes it may do; its secret is shown this once."""
        wanted = new_key(record, body)

        def act(conn: Connection, _: str | None) -> bytes:
            get_account(conn, wanted.account_id)
            made, secret = create_key(conn, state.pepper, wanted, state.clock.now_ms())
            return NewKeyView(**key_members(made), secret=secret).model_dump_json().encode()

        return await create(state, request, record, act)

    @api.delete("/v1/api-keys/{key_id}")
    async def delete_key(
        key_id: str, account: AccountId | None = None, record: KeyRecord = Depends(manager)
    ) -> KeyView:
        """Revoke a key, at once here and within a second on other gateways."""
        if not is_id(Prefix.KEY, key_id):
            raise LatticeError("not_found", "This account has no key with that id.")
        owner = target_account(record, account)
        revoked = await state.store.write(revoke_key, owner, key_id, state.clock.now_ms())
        state.keys.clear()
        return KeyView.of(revoked)

    return api


def new_key(maker: KeyRecord, body: NewKeyBody) -> NewKey:
    """The key that is asked for, or `insufficient_scopes` where it would exceed its maker."""
    scopes = frozenset(body.scopes if body.scopes is not None else map(str, DEFAULT_SCOPES & maker.scopes))
    beyond = sorted(scopes - maker.scopes)
    if beyond and all(scope in frozenset(Scope) for scope in beyond):
        raise LatticeError(
            "insufficient_scopes", "A key cannot give scopes that it does not have.", details={"needs": beyond[0]}
        )
    return NewKey(
        account_id=target_account(maker, body.account),
        name=body.name,
        scopes=scopes,
        allowed_models=None if body.allowed_models is None else frozenset(body.allowed_models),
        spend_cap_micro=body.spend_cap_micro,
        requests_per_minute=body.requests_per_minute,
        expires_at_ms=body.expires_at_ms,
    )
