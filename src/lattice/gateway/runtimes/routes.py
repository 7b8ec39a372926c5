"""REST for runtimes: personal ones for their owners, hosted ones for the operator, and the redemption route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.responses import Response

from lattice.core.errors import LatticeError
from lattice.core.ids import SecretPrefix, new_secret, unb64url
from lattice.gateway.api.access import create
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.identity.scopes import Scope
from lattice.gateway.runtimes.bootstrap import LIFE_MS, mint_bootstrap
from lattice.gateway.runtimes.pairing import RedemptionRequest
from lattice.gateway.runtimes.rows import (
    Kind,
    RuntimeRow,
    create_runtime,
    get_runtime,
    list_runtimes,
    revoke_runtime,
    set_verified,
)
from lattice.gateway.runtimes.view import runtime_view

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

READ_SCOPES = (Scope.INFERENCE, Scope.PERSONAL_RUNTIME_MANAGE)


class NewRuntime(BaseModel):
    """Body of a creation."""

    name: str = Field("", max_length=100)


class NewBootstrap(BaseModel):
    """Body of a mint; both members where the minting client made a pairing secret, neither where it did not."""

    app_key: str | None = Field(None, max_length=100)
    app_key_mac: str | None = Field(None, max_length=100)


class Confirmation(BaseModel):
    """Body of a fingerprint confirmation."""

    fingerprint: str = Field(max_length=400)


class Redemption(BaseModel):
    """Body of either call of a redemption."""

    token: str = Field(max_length=400)
    identity_key: str = Field(max_length=100)
    challenge: str | None = Field(None, max_length=100)
    proof: str | None = Field(None, max_length=200)
    key_config: str | None = Field(None, max_length=8000)
    mac: str | None = Field(None, max_length=100)
    name: str | None = Field(None, max_length=100)


class RuntimeRoutes:
    """The handlers, for one kind of runtime and the scope that manages it."""

    def __init__(self, gateway: Gateway, kind: Kind, manage: Scope, read: tuple[Scope, ...]) -> None:
        self._gateway = gateway
        self._kind = kind
        self._manage = manage
        self._read = read

    async def create(self, request: Request, body: NewRuntime) -> Response:
        """A record without a machine; pair it with a bootstrap token."""
        key = await self._key(request, self._manage)
        now = self._gateway.clock.now_ms()

        def act(conn: Connection, _: str | None) -> bytes:
            row = create_runtime(conn, key.account_id, self._kind, body.name or self._kind, now)
            return msgspec.json.encode(runtime_view(row, None, now))

        return await create(self._gateway, request, key, act)

    async def list(
        self,
        request: Request,
        limit: int = Query(100, ge=1, le=1000),
        cursor: str | None = None,
        revoked: bool = False,
    ) -> JSONResponse:
        """The account's machines with live reachability, newest first; revoked ones only when asked for."""
        key = await self._key(request, *self._read)
        rows = await self._gateway.store.read(
            list_runtimes, account_id=key.account_id, kind=self._kind, limit=limit, cursor=cursor, revoked=revoked
        )
        following = rows[-1].id if len(rows) == limit else None
        return JSONResponse({"data": [self._view(row) for row in rows], "next_cursor": following})

    async def read(self, request: Request, runtime_id: str) -> JSONResponse:
        """One machine, with its signed key configuration."""
        key = await self._key(request, *self._read)
        return JSONResponse(self._view(await self._own(key, runtime_id)))

    async def revoke(self, request: Request, runtime_id: str) -> JSONResponse:
        """End it for good: its credential stops working and its work fails."""
        key = await self._key(request, self._manage)
        await self._own(key, runtime_id)
        now = self._gateway.clock.now_ms()
        row = await self._gateway.store.write(revoke_runtime, key.account_id, runtime_id, now)
        self._gateway.credentials.forget()
        self._gateway.hub.drop(runtime_id)
        return JSONResponse(self._view(row))

    async def bootstrap(self, request: Request, runtime_id: str, body: NewBootstrap) -> Response:
        """A one-time token that lives ten minutes."""
        key = await self._key(request, self._manage)
        row = await self._own(key, runtime_id)
        if (body.app_key is None) != (body.app_key_mac is None):
            raise LatticeError("invalid_request", "`app_key` and `app_key_mac` come together.")
        app_key, app_key_mac = _decode(body.app_key, "app_key"), _decode(body.app_key_mac, "app_key_mac")
        now = self._gateway.clock.now_ms()
        origin = self._gateway.settings.origin

        def act(conn: Connection, _: str | None) -> bytes:
            token = new_secret(SecretPrefix.BOOTSTRAP, 24)
            mint_bootstrap(conn, row, self._gateway.pepper.hash(token), app_key, app_key_mac, now)
            return msgspec.json.encode({"token": token, "expires_at_ms": now + LIFE_MS, "origin": origin})

        return await create(self._gateway, request, key, act)

    async def confirm(self, request: Request, runtime_id: str, body: Confirmation) -> JSONResponse:
        """The owner compared the word fingerprint with the one on the machine's screen."""
        key = await self._key(request, self._manage)
        view = self._view(await self._own(key, runtime_id))
        if view["fingerprint"] is None or body.fingerprint.split() != str(view["fingerprint"]).split():
            raise LatticeError("runtime_identity_changed", "The words are not this machine's fingerprint.")
        row = await self._gateway.store.write(set_verified, key.account_id, runtime_id)
        return JSONResponse(self._view(row))

    async def _key(self, request: Request, *scopes: Scope) -> KeyRecord:
        key = await self._gateway.authenticate(request)
        key.require_any_scope(scopes)
        return key

    async def _own(self, key: KeyRecord, runtime_id: str) -> RuntimeRow:
        return await self._gateway.store.read(get_runtime, runtime_id, account_id=key.account_id, kind=self._kind)

    def _view(self, row: RuntimeRow) -> dict[str, Any]:
        return runtime_view(row, self._gateway.hub.links.get(row.id), self._gateway.clock.now_ms())


def router(gateway: Gateway) -> APIRouter:
    """All runtime routes."""
    api = APIRouter()
    personal = RuntimeRoutes(gateway, "personal", Scope.PERSONAL_RUNTIME_MANAGE, READ_SCOPES)
    hosted = RuntimeRoutes(gateway, "hosted", Scope.ADMIN, (Scope.ADMIN,))
    for prefix, routes, tag in (
        ("/v1/personal-runtimes", personal, "personal runtimes"),
        ("/v1/hosted-runtimes", hosted, "hosted runtimes"),
    ):
        item = prefix + "/{runtime_id}"
        for path, endpoint, method, status in (
            (prefix, routes.create, "POST", 201),
            (prefix, routes.list, "GET", 200),
            (item, routes.read, "GET", 200),
            (item, routes.revoke, "DELETE", 200),
            (item + "/bootstrap-tokens", routes.bootstrap, "POST", 201),
            (item + "/fingerprint-confirmations", routes.confirm, "POST", 200),
        ):
            name = f"{endpoint.__name__}_{routes._kind}_runtime"
            api.add_api_route(path, endpoint, methods=[method], status_code=status, name=name, tags=[tag])

    @api.post("/v1/personal-runtime-bootstrap-redemptions", status_code=201, tags=["personal runtimes"])
    async def redeem(body: Redemption) -> JSONResponse:
        """`lattice-ctl relay connect` redeems a bootstrap token here; the first of two calls gets 200."""
        status, answer = await gateway.pairing.redeem(RedemptionRequest(**body.model_dump()))
        gateway.credentials.forget()
        if status == 201:  # whoever polls under the earlier credential gets nothing more
            gateway.hub.drop(str(answer["runtime"]), "was paired anew")
        return JSONResponse(answer, status)

    return api


def _decode(text: str | None, name: str) -> bytes | None:
    if text is None:
        return None
    try:
        data = unb64url(text)
    except ValueError:
        raise LatticeError("invalid_request", f"`{name}` is not unpadded base64url.") from None
    if len(data) != 32:
        raise LatticeError("invalid_request", f"`{name}` is not 32 bytes.")
    return data
