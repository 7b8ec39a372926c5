"""The streams of events: of one model, and of everything of an account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import StreamingResponse

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, is_id
from lattice.gateway.api.access import caller
from lattice.gateway.encrypted.model_rows import get_model
from lattice.gateway.identity import KeyRecord, Scope

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

After = Annotated[str | None, Query(max_length=64, description="Only what came after this event.")]
LastEventId = Annotated[str | None, Header(max_length=64)]

SEEN: dict[Scope, tuple[str, ...]] = {
    Scope.MODELS_MANAGE: ("version.", "worker.", "credits."),
    Scope.WORKERS_MANAGE: ("worker.",),
    Scope.CREDITS_READ: ("credits.",),
}
"""Which events of its account a key hears of, by scope."""


def router(gateway: Gateway) -> APIRouter:
    """Both streams."""
    api = APIRouter(tags=["events"])
    events = gateway.encrypted.events

    @api.get("/v1/encrypted-models/{model_id}/events", response_class=StreamingResponse)
    async def read_model_events(
        model_id: str,
        after: After = None,
        last_event_id: LastEventId = None,
        key: KeyRecord = Depends(caller(gateway, Scope.MODELS_MANAGE)),
    ) -> StreamingResponse:
        """What happened to the model and what happens, as server-sent events; they go on from `Last-Event-ID`."""
        since = _since(after, last_event_id)
        await gateway.store.read(get_model, key.account_id, model_id)
        return _streaming(events.stream(model_id, since))

    @api.get("/v1/account/events", response_class=StreamingResponse)
    async def read_account_events(
        after: After = None,
        last_event_id: LastEventId = None,
        key: KeyRecord = Depends(caller(gateway)),
    ) -> StreamingResponse:
        """What happens to the account's models, workers and credits, as server-sent events; they go on from
        `Last-Event-ID`.

        A key with `lattice:models:manage` hears everything, one with `lattice:workers:manage` what its workers do, one
        with `lattice:credits:read` what concerns the credits.
        """
        since = _since(after, last_event_id)
        key.require_any_scope(SEEN)
        kinds = sorted({kind for scope, seen in SEEN.items() if scope in key.scopes for kind in seen})
        return _streaming(events.account_stream(key.account_id, kinds, since))

    return api


def _since(after: str | None, last_event_id: str | None) -> str:
    since = last_event_id or after or ""
    if since and not is_id(Prefix.EVENT, since):
        raise LatticeError("invalid_request", "`after` is not the id of an event.")
    return since


def _streaming(pieces: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(pieces, media_type="text/event-stream", headers={"cache-control": "no-store"})
