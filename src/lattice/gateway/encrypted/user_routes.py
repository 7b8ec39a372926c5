"""What the holder of an access token sees: the model that it opens, and the user's evaluation keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from lattice.core.errors import LatticeError
from lattice.gateway.api.access import create
from lattice.gateway.encrypted.access import token_holder
from lattice.gateway.encrypted.evaluation_key_rows import KeysRow, delete_keys, fitting_keys, list_keys
from lattice.gateway.encrypted.model_rows import ModelRow, find_model
from lattice.gateway.encrypted.token_rows import TokenRecord
from lattice.gateway.encrypted.version_rows import VersionRow
from lattice.gateway.encrypted.views import KeysList, KeysView, NewKeysBody, TokenModelView, TokenView, keys_id
from lattice.gateway.workers.standing import asked_version, current, standings

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


def router(gateway: Gateway) -> APIRouter:
    """The token holder's routes."""
    api = APIRouter(tags=["encrypted inference"])
    holder = token_holder(gateway)

    @api.get("/v1/encrypted-model")
    async def read_own_model(token: TokenRecord = Depends(holder)) -> TokenModelView:
        """The model that this token opens, the keys that it needs, and the user's keys where they fit already."""
        model, version, keys = await gateway.store.read(_opened, token)
        assert version.client_sha256 is not None
        size = await gateway.encrypted.blobs.size(version.client_sha256)
        if size is None:
            raise LatticeError("not_found", "The gateway does not have the model's bytes any more.")
        view = TokenView.of(token, gateway.clock.now_ms())
        return _view(model, version, keys, size, view)

    @api.get("/v1/encrypted-model/client", response_class=StreamingResponse, responses=_BYTES)
    async def read_client_part(
        request: Request, version: int | None = Query(default=None, ge=1), token: TokenRecord = Depends(holder)
    ) -> Response:
        """The artefact's client part: parameters, the list of keys, how to encrypt and decrypt. No weights.

        Of the version that `GET /v1/encrypted-model` names, or of another one that is ready.
        """
        found = await gateway.store.read(asked_version, token.model_id, version)
        assert found.client_sha256 is not None
        etag = f'"{found.client_sha256.hex()}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        size = await gateway.encrypted.blobs.size(found.client_sha256)
        if size is None:
            raise LatticeError("not_found", "The gateway does not have the model's bytes any more.")
        return StreamingResponse(
            gateway.encrypted.blobs.stream(found.client_sha256),
            media_type="application/octet-stream",
            headers={"content-length": str(size), "etag": etag},
        )

    @api.post("/v1/evaluation-keys", status_code=201, response_model=KeysView)
    async def register_keys(request: Request, body: NewKeysBody, token: TokenRecord = Depends(holder)) -> Response:
        """Register uploaded keys, in place of earlier ones for the same list. All clients of the user share them."""
        new = await gateway.encrypted.keys.check(token, body.upload_id, body.version)

        def act(conn: Connection, _: str | None) -> bytes:
            row = gateway.encrypted.keys.register(conn, new)
            return KeysView.of(row, new.keys_hash).model_dump_json().encode()

        return await create(gateway, request, token, act)

    @api.get("/v1/evaluation-keys")
    async def read_keys(token: TokenRecord = Depends(holder)) -> KeysList:
        """The user's keys for this model, newest first."""
        user = token.require_user()

        def read(conn: Connection) -> KeysList:
            found = standings(conn, token.model_id)
            wanted = current(found).version.keys_hash if found else None
            return KeysList(data=[KeysView.of(row, wanted) for row in list_keys(conn, token.model_id, user)])

        return await gateway.store.read(read)

    @api.delete("/v1/evaluation-keys/{keys}", status_code=204)
    async def remove_keys(keys: str, token: TokenRecord = Depends(holder)) -> Response:
        """Delete keys. Queries with them fail from now on."""
        now = gateway.clock.now_ms()
        await gateway.store.write(delete_keys, token.model_id, token.require_user(), keys, now)
        return Response(status_code=204)

    return api


def _opened(conn: Connection, token: TokenRecord) -> tuple[ModelRow, VersionRow, KeysRow | None]:
    model = find_model(conn, token.model_id)
    if model is None:
        raise LatticeError("not_found", "The model was deleted.")
    version = asked_version(conn, model.id, None)
    assert version.keys_hash is not None
    keys = fitting_keys(conn, model.id, token.user, version.keys_hash) if token.user else None
    return model, version, keys


def _view(
    model: ModelRow, version: VersionRow, keys: KeysRow | None, client_bytes: int, token: TokenView
) -> TokenModelView:
    assert version.program_id is not None
    assert version.parameters_id is not None
    assert version.key_bytes is not None
    assert version.client_sha256 is not None
    assert version.artefact_sha256 is not None
    return TokenModelView(
        model=model.id,
        name=model.name,
        version=version.number,
        program_id=version.program_id,
        parameters_id=version.parameters_id,
        keys_id=str(keys_id(version)),
        key_bytes=version.key_bytes,
        client_sha256=version.client_sha256.hex(),
        client_bytes=client_bytes,
        artefact_sha256=version.artefact_sha256.hex(),
        evaluation_keys=None if keys is None else keys.id,
        token=token,
    )
