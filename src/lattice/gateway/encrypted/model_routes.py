"""`/v1/encrypted-models`: a provider's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, SecretPrefix, new_secret
from lattice.gateway.api.access import caller, create
from lattice.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, page, require_cursor
from lattice.gateway.api.views import Page
from lattice.gateway.encrypted.model_rows import (
    ModelRow,
    NewModel,
    change_model,
    create_model,
    delete_model,
    get_model,
    list_models,
)
from lattice.gateway.encrypted.version_rows import list_versions, ready_version
from lattice.gateway.encrypted.views import ChangedModelBody, ModelView, ModelWithSecretView, NewModelBody
from lattice.gateway.encrypted.webhooks import check_url
from lattice.gateway.identity import KeyRecord, Scope

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway


def router(gateway: Gateway) -> APIRouter:
    """The model routes."""
    api = APIRouter(tags=["encrypted models"])
    _add_making(api, gateway)
    _add_reading(api, gateway)
    _add_changing(api, gateway)
    return api


def _add_making(api: APIRouter, gateway: Gateway) -> None:
    provider, hooks = caller(gateway, Scope.MODELS_MANAGE), Hooks(gateway)

    @api.post("/v1/encrypted-models", status_code=201, response_model=ModelWithSecretView)
    async def make_model(request: Request, body: NewModelBody, key: KeyRecord = Depends(provider)) -> Response:
        """Make a model without a version. With a `webhook_url` the answer holds the secret that signs its webhooks."""
        hooks.check(body.webhook_url)

        def act(conn: Connection, _: str | None) -> bytes:
            secret, sealed = hooks.new_secret(body.webhook_url)
            new = NewModel(
                account_id=key.account_id,
                name=body.name,
                visibility=body.visibility,
                weights_exposure=body.weights_exposure,
                settings=body.settings.model_dump_json(),
                webhook_url=body.webhook_url,
                webhook_secret=sealed,
            )
            view = _view(conn, create_model(conn, new, gateway.clock.now_ms()))
            return ModelWithSecretView(**view.model_dump(), webhook_secret=secret).model_dump_json().encode()

        return await create(gateway, request, key, act)


def _add_reading(api: APIRouter, gateway: Gateway) -> None:
    provider = caller(gateway, Scope.MODELS_MANAGE)

    @api.get("/v1/encrypted-models")
    async def read_models(
        limit: Limit = DEFAULT_LIMIT,
        cursor: Cursor = None,
        name: str | None = Query(None, max_length=200, description="Only the model of this name."),
        key: KeyRecord = Depends(provider),
    ) -> Page[ModelView]:
        """The account's models, newest first."""
        require_cursor(Prefix.MODEL, cursor)

        def read(conn: Connection) -> Page[ModelView]:
            rows = list_models(conn, key.account_id, cursor, limit + 1, name)
            return page(rows, limit, lambda row: _view(conn, row))

        return await gateway.store.read(read)

    @api.get("/v1/encrypted-models/{model_id}")
    async def read_model(model_id: str, key: KeyRecord = Depends(provider)) -> ModelView:
        """One model."""
        return await gateway.store.read(lambda conn: _view(conn, get_model(conn, key.account_id, model_id)))


def _add_changing(api: APIRouter, gateway: Gateway) -> None:
    provider, hooks = caller(gateway, Scope.MODELS_MANAGE), Hooks(gateway)

    @api.patch("/v1/encrypted-models/{model_id}", response_model=ModelWithSecretView)
    async def patch_model(model_id: str, body: ChangedModelBody, key: KeyRecord = Depends(provider)) -> Response:
        """Change what is named. A new `webhook_url` comes with a new secret, shown this once."""
        changes: dict[str, Any] = body.model_dump(exclude_unset=True, exclude={"settings"})
        if any(value is None for name, value in changes.items() if name != "webhook_url"):
            raise LatticeError("invalid_request", "Only `webhook_url` may be null.")
        if body.settings is not None:
            changes["settings"] = body.settings.model_dump_json()
        secret = None
        if "webhook_url" in changes:
            hooks.check(body.webhook_url)
            secret, changes["webhook_secret"] = hooks.new_secret(body.webhook_url)

        def write(conn: Connection) -> ModelView:
            return _view(conn, change_model(conn, key.account_id, model_id, changes))

        view = await gateway.store.write(write)
        return JSONResponse(view.model_dump() | {"webhook_secret": secret})

    @api.delete("/v1/encrypted-models/{model_id}", status_code=204)
    async def remove_model(model_id: str, key: KeyRecord = Depends(provider)) -> Response:
        """End a model: its tokens open nothing any more, and its bytes go."""
        await gateway.store.write(delete_model, key.account_id, model_id, gateway.clock.now_ms())
        gateway.encrypted.tokens.clear()
        return Response(status_code=204)


class Hooks:
    """Webhook addresses that are allowed, and the secrets that sign what is sent there."""

    def __init__(self, gateway: Gateway) -> None:
        self._box, self._private = gateway.encrypted.box, gateway.settings.webhook_private_addresses

    def check(self, url: str | None) -> None:
        """Raise `invalid_request` for an address that is not to be called."""
        if url is not None:
            check_url(url, self._private)

    def new_secret(self, url: str | None) -> tuple[str | None, bytes | None]:
        """A fresh secret and the same sealed, where there is an address."""
        if url is None:
            return None, None
        secret = new_secret(SecretPrefix.WEBHOOK)
        return secret, self._box.seal(secret, "webhook")


def _view(conn: Connection, row: ModelRow) -> ModelView:
    latest = list_versions(conn, row.id, None, 1)
    return ModelView.of(row, ready_version(conn, row.id), latest[0] if latest else None)
