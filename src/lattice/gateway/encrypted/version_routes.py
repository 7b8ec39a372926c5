"""`…/versions`: what was uploaded becomes what queries run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from lattice.core.errors import LatticeError
from lattice.gateway.api.access import caller, create
from lattice.gateway.api.paging import DEFAULT_LIMIT, Limit
from lattice.gateway.encrypted.model_rows import get_model
from lattice.gateway.encrypted.upload_rows import complete_upload
from lattice.gateway.encrypted.version_rows import (
    NewVersion,
    VersionRow,
    create_version,
    get_version,
    list_versions,
)
from lattice.gateway.encrypted.views import NewVersionBody, VersionPage, VersionView
from lattice.gateway.identity import KeyRecord, Scope

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

MAX_NUMBER = 2**31 - 1


def router(gateway: Gateway) -> APIRouter:
    """The version routes."""
    api = APIRouter(tags=["encrypted models"])
    provider = caller(gateway, Scope.MODELS_MANAGE)

    @api.post("/v1/encrypted-models/{model_id}/versions", status_code=201, response_model=VersionView)
    async def make_version(
        request: Request, model_id: str, body: NewVersionBody, key: KeyRecord = Depends(provider)
    ) -> Response:
        """Deploy a complete upload. It is checked, and compiled where it is ONNX, in a process of its own; follow
        `…/events`. Once ready it takes the queries; keys stay valid unless the program needs others."""
        if (body.kind == "onnx") != (body.calibration_upload_id is not None):
            raise LatticeError("invalid_request", "`calibration_upload_id` goes with `kind: onnx`, and only with it.")

        def act(conn: Connection, _: str | None) -> bytes:
            model = get_model(conn, key.account_id, model_id)
            new = _new_version(conn, key, body, gateway.hub.gateway_id)
            row = create_version(conn, model, new, gateway.clock.now_ms())
            return VersionView.of(row).model_dump_json().encode()

        answer = await create(gateway, request, key, act)
        gateway.encrypted.compiler.notify(model_id)
        return answer

    @api.get("/v1/encrypted-models/{model_id}/versions")
    async def read_versions(
        model_id: str,
        limit: Limit = DEFAULT_LIMIT,
        cursor: int | None = Query(None, ge=1, le=MAX_NUMBER, description="`next_cursor` of the page before."),
        key: KeyRecord = Depends(provider),
    ) -> VersionPage:
        """A model's versions, newest first."""

        def read(conn: Connection) -> VersionPage:
            get_model(conn, key.account_id, model_id)
            rows = list_versions(conn, model_id, cursor, limit + 1)
            following = rows[limit - 1].number if len(rows) > limit else None
            return VersionPage(data=[VersionView.of(row) for row in rows[:limit]], next_cursor=following)

        return await gateway.store.read(read)

    @api.get("/v1/encrypted-models/{model_id}/versions/{number}")
    async def read_version(model_id: str, number: int, key: KeyRecord = Depends(provider)) -> VersionView:
        """One version."""
        return VersionView.of(await gateway.store.read(_own_version, key, model_id, number))

    @api.get("/v1/encrypted-models/{model_id}/versions/{number}/report", response_model=dict)
    async def read_report(model_id: str, number: int, key: KeyRecord = Depends(provider)) -> Response:
        """What the compiler says of it: accuracy, precision, levels, keys, sizes, predicted times."""
        row = await gateway.store.read(_own_version, key, model_id, number)
        if row.report is None:
            raise LatticeError("model_not_ready", f"The version is {row.state}.")
        return Response(row.report, media_type="application/json")

    return api


def _new_version(conn: Connection, key: KeyRecord, body: NewVersionBody, gateway_id: str) -> NewVersion:
    source = complete_upload(conn, key.account_id, body.upload_id, ("model",))
    calibration = None
    if body.calibration_upload_id is not None:
        calibration = complete_upload(conn, key.account_id, body.calibration_upload_id, ("calibration",)).sha256
    return NewVersion(
        source_sha256=source.sha256,
        source_kind=body.kind,
        calibration_sha256=calibration,
        options=msgspec.json.encode(body.options).decode(),
        gateway_id=gateway_id,
    )


def _own_version(conn: Connection, key: KeyRecord, model_id: str, number: int) -> VersionRow:
    get_model(conn, key.account_id, model_id)
    if not 1 <= number <= MAX_NUMBER:
        raise LatticeError("not_found", "The model has no version of that number.")
    return get_version(conn, model_id, number)
