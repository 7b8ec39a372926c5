"""`/v1/uploads`: announced, sent in parts in any order and as often as it takes, then complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Request
from sqlalchemy import Connection
from starlette.responses import Response

from lattice.gateway.api.access import create
from lattice.gateway.encrypted.access import Uploader, body_pieces, uploading
from lattice.gateway.encrypted.upload_rows import NewUpload, UploadRow, create_upload, get_upload
from lattice.gateway.encrypted.views import NewUploadBody, UploadView

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

_PART = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def router(gateway: Gateway) -> APIRouter:
    """The upload routes, for keys and tokens alike."""
    api = APIRouter(tags=["uploads"])
    uploads = gateway.encrypted.uploads

    uploading_one = uploading(gateway)

    async def own(uploader: Uploader, upload_id: str) -> UploadRow:
        return await gateway.store.read(get_upload, uploader.account_id, upload_id, uploader.token_id)

    @api.post("/v1/uploads", status_code=201, response_model=UploadView)
    async def begin_upload(
        request: Request, body: NewUploadBody, uploader: Uploader = Depends(uploading_one)
    ) -> Response:
        """Announce a file: its kind, size and SHA-256. Takes a developer key or an access token."""
        uploads.require_room(body.bytes)
        new = NewUpload(
            account_id=uploader.account_id,
            token_id=uploader.token_id,
            kind=body.kind,
            size=body.bytes,
            sha256=bytes.fromhex(body.sha256),
        )

        def act(conn: Connection, _: str | None) -> bytes:
            row = create_upload(conn, new, gateway.clock.now_ms())
            return UploadView.of(row).model_dump_json().encode()

        return await create(gateway, request, uploader, act)

    @api.get("/v1/uploads/{upload_id}")
    async def read_upload(upload_id: str, uploader: Uploader = Depends(uploading_one)) -> UploadView:
        """What has arrived, so that an interrupted upload can go on."""
        return UploadView.of(await own(uploader, upload_id))

    @api.put("/v1/uploads/{upload_id}/parts/{part}", openapi_extra=_PART)
    async def put_part(
        request: Request, upload_id: str, part: int, uploader: Uploader = Depends(uploading_one)
    ) -> UploadView:
        """Send a part, as raw bytes. Sending the same bytes again changes nothing."""
        row = await own(uploader, upload_id)
        pieces = body_pieces(request, gateway.settings.body_seconds)
        return UploadView.of(await uploads.put_part(row, part, pieces))

    @api.post("/v1/uploads/{upload_id}/complete")
    async def complete_upload(upload_id: str, uploader: Uploader = Depends(uploading_one)) -> UploadView:
        """Check size and hash of the whole. Again changes nothing."""
        return UploadView.of(await uploads.complete(await own(uploader, upload_id)))

    return api
