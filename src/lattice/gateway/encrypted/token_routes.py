"""`…/access-tokens`: what a provider hands to end users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection
from starlette.responses import Response

from lattice.core.ids import Prefix
from lattice.gateway.api.access import caller, create
from lattice.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, page, require_cursor
from lattice.gateway.api.views import Page
from lattice.gateway.encrypted.model_rows import get_model
from lattice.gateway.encrypted.token_rows import (
    NewToken,
    TokenRecord,
    assign_token,
    create_token,
    get_token,
    list_tokens,
    revoke_token,
)
from lattice.gateway.encrypted.views import AssignBody, NewTokenBody, NewTokenView, TokenView, token_members
from lattice.gateway.identity import KeyRecord, Scope

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

LIST = "/v1/encrypted-models/{model_id}/access-tokens"
ITEM = LIST + "/{token_id}"


def router(gateway: Gateway) -> APIRouter:
    """The token routes of a provider."""
    api = APIRouter(tags=["access tokens"])
    provider = caller(gateway, Scope.TOKENS_MANAGE)

    def view(row: TokenRecord) -> TokenView:
        return TokenView.of(row, gateway.clock.now_ms())

    @api.post(LIST, status_code=201, response_model=NewTokenView)
    async def make_token(
        request: Request, model_id: str, body: NewTokenBody, key: KeyRecord = Depends(provider)
    ) -> Response:
        """Make an access token for one user of this model. Its secret is shown this once."""

        def act(conn: Connection, _: str | None) -> bytes:
            get_model(conn, key.account_id, model_id)
            now = gateway.clock.now_ms()
            given = body.model_dump() | {"user": body.user or ""}
            new = NewToken(account_id=key.account_id, model_id=model_id, **given)
            row, secret = create_token(conn, gateway.pepper, new, now)
            return NewTokenView(**token_members(row, now), secret=secret).model_dump_json().encode()

        return await create(gateway, request, key, act)

    @api.get(LIST)
    async def read_tokens(
        model_id: str, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, key: KeyRecord = Depends(provider)
    ) -> Page[TokenView]:
        """The model's tokens, revoked ones too, newest first, with what each has used."""
        require_cursor(Prefix.ACCESS_TOKEN, cursor)

        def read(conn: Connection) -> list[TokenRecord]:
            get_model(conn, key.account_id, model_id)
            return list_tokens(conn, key.account_id, model_id, cursor, limit + 1)

        return page(await gateway.store.read(read), limit, view)

    @api.get(ITEM)
    async def read_token(model_id: str, token_id: str, key: KeyRecord = Depends(provider)) -> TokenView:
        """One token."""
        return view(await gateway.store.read(get_token, key.account_id, model_id, token_id))

    @api.delete(ITEM)
    async def remove_token(model_id: str, token_id: str, key: KeyRecord = Depends(provider)) -> TokenView:
        """Revoke a token, at once here and within a second on other gateways."""
        now = gateway.clock.now_ms()
        row = await gateway.store.write(revoke_token, key.account_id, model_id, token_id, now)
        gateway.encrypted.tokens.clear()
        return view(row)

    @api.post(ITEM + "/assign")
    async def assign(model_id: str, token_id: str, body: AssignBody, key: KeyRecord = Depends(provider)) -> TokenView:
        """Give the token to a user. Keys belong to users: the new one registers their own."""
        row = await gateway.store.write(assign_token, key.account_id, model_id, token_id, body.user)
        gateway.encrypted.tokens.clear()
        return view(row)

    @api.post(ITEM + "/unassign")
    async def unassign(model_id: str, token_id: str, key: KeyRecord = Depends(provider)) -> TokenView:
        """Take the token back without ending it."""
        row = await gateway.store.write(assign_token, key.account_id, model_id, token_id, "")
        gateway.encrypted.tokens.clear()
        return view(row)

    return api
