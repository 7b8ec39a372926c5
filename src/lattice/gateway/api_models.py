"""`GET /v1/models`: the catalogue, the caller's own machines and encrypted models, in OpenAI's list shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.core.models import CATALOGUE, encrypted_model, personal_model
from lattice.gateway.encrypted.model_rows import ModelRow, visible_models
from lattice.gateway.encrypted.version_rows import VersionRow, ready_version
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.identity.scopes import Scope

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

MAX_ENCRYPTED = 200
"""Newest first; `GET /v1/encrypted-models` pages through all."""
READ_SCOPES = (Scope.INFERENCE, Scope.CATALOG_READ)


def router(gateway: Gateway) -> APIRouter:
    """The catalogue's routes."""
    api = APIRouter(tags=["models"])

    @api.get("/v1/models")
    async def list_models(request: Request) -> JSONResponse:
        """What this key may name as `model`, with prices and the state of each machine."""
        key = await gateway.authenticate(request)
        key.require_any_scope(READ_SCOPES)
        return JSONResponse({"object": "list", "data": await _models(gateway, key)})

    @api.get("/v1/models/{model:path}")
    async def read_model(request: Request, model: str) -> JSONResponse:
        """One entry of the list."""
        key = await gateway.authenticate(request)
        key.require_any_scope(READ_SCOPES)
        for entry in await _models(gateway, key):
            if entry["id"] in (model, CATALOGUE + model):
                return JSONResponse(entry)
        raise LatticeError("model_not_found")

    return api


async def _models(gateway: Gateway, key: KeyRecord) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [
        {
            "id": CATALOGUE + price.model,
            "object": "model",
            "created": 0,
            "owned_by": "lattice",
            "kind": "hosted",
            "input_micro_per_million": price.input_micro_per_million,
            "output_micro_per_million": price.output_micro_per_million,
            "context": price.context,
        }
        for price in (await gateway.catalogue.prices()).values()
    ]
    now = gateway.clock.now_ms()
    for link in gateway.hub.links.values():
        if link.kind != "personal" or link.account_id != key.account_id or not link.reachable(now):
            continue
        for index, offer in enumerate(link.models):
            entries.append(
                {
                    "id": personal_model(link.runtime_id, None if index == 0 else offer.id),
                    "object": "model",
                    "created": 0,
                    "owned_by": key.account_id,
                    "kind": "personal",
                    "local_model": offer.id,
                    "tasks": list(offer.tasks),
                    "context": offer.context,
                }
            )
    for model, ready in await gateway.store.read(_encrypted, key.account_id):
        entries.append(
            {
                "id": encrypted_model(model.id),
                "object": "model",
                "created": model.created_at_ms // 1000,
                "owned_by": model.account_id,
                "kind": "encrypted",
                "name": model.name,
                "visibility": model.visibility,
                "version": ready.number,
                "parameters_id": ready.parameters_id,
                "key_bytes": ready.key_bytes,
            }
        )
    return [entry for entry in entries if key.allows_model(str(entry["id"]))]


def _encrypted(conn: Connection, account_id: str) -> list[tuple[ModelRow, VersionRow]]:
    """The account's own and public encrypted models that can be queried."""
    found = [(model, ready_version(conn, model.id)) for model in visible_models(conn, account_id, MAX_ENCRYPTED)]
    return [(model, ready) for model, ready in found if ready is not None]
