"""What the sealing transports look at in a request, and the OpenAI-shaped responses that they make. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx2
import msgspec

from lattice.client.faults import decode_json
from lattice.client.inference import SEALING_HEADER
from lattice.client.requests import PATHS, Ask, make_ask
from lattice.client.results import Provenance
from lattice.client.sealed import ReplyReader, Task
from lattice.client.sse import DONE, encode_event
from lattice.core.errors import LatticeError
from lattice.core.models import PERSONAL
from lattice.sealing.stream import MEDIA_ENVELOPE

_NOT_FORWARDED = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "transfer-encoding",
        SEALING_HEADER,
    }
)
"""Headers that describe the body that was replaced; every other header of the caller goes along."""

_NEVER_REPEATED = frozenset({"gateway_unreachable", "idempotency_in_flight"})
"""Retryable for identical bytes only. A retry of OpenAI's SDK would be sealed anew and could run twice."""


class Target(NamedTuple):
    """A request that must be sealed: what to ask, and the gateway's root (up to and including `/v1`)."""

    ask: Ask
    root: str
    headers: dict[str, str]


def may_be_personal(request: httpx2.Request) -> bool:
    """Whether the body has to be looked at: JSON that is posted, and not meant for the mode `gateway` on purpose."""
    media = _media(request)
    if request.method not in ("POST", "PUT", "PATCH") or media == MEDIA_ENVELOPE:
        return False
    if request.headers.get(SEALING_HEADER) == "gateway":
        return False
    return media in ("", "application/json") or _task(request) is not None


def sealed_target(request: httpx2.Request, content: bytes) -> Target | None:
    """How to seal a request, or None for one that is not for a named machine.

    Where a body names a machine and the route can't be sealed, or a chat body can't be read, this raises rather than
    show the gateway a prompt.
    """
    task = _task(request)
    body = decode_json(content)
    model = body.get("model") if isinstance(body, dict) else None
    personal = isinstance(model, str) and model.startswith(PERSONAL)
    if task is None:
        if personal:
            raise LatticeError("sealing_mode_unavailable", "This route cannot be sealed; nothing was sent.")
        return None
    if isinstance(model, str) and not personal:
        return None
    ask = make_ask(task, content, idempotency_key=request.headers.get("idempotency-key"))
    root = str(request.url.copy_with(query=None, fragment=None)).removesuffix(PATHS[task])
    headers = {name: value for name, value in request.headers.items() if name not in _NOT_FORWARDED}
    return Target(ask, root, headers)


def error_response(error: LatticeError, request: httpx2.Request) -> httpx2.Response:
    """An error as OpenAI's SDK expects it. Its own retries seal anew, so they are allowed only where nothing ran."""
    retry = error.spec.retry and error.code not in _NEVER_REPEATED
    headers = {"content-type": "application/json", "x-should-retry": "true" if retry else "false"}
    if error.request_id:
        headers["x-request-id"] = error.request_id
    if error.retry_after_ms is not None:
        headers["retry-after"] = str(-(-error.retry_after_ms // 1000))
    return httpx2.Response(error.status, headers=headers, content=_encode(error.openai_body()), request=request)


def whole_response(
    payload: bytes, reader: ReplyReader, provenance: Provenance, request: httpx2.Request
) -> httpx2.Response:
    """A whole answer, or an engine's own refusal with its own status, as the engine made it."""
    status = reader.trailer.status if reader.trailer else 200
    headers = {**provenance_headers(provenance), "content-type": "application/json"}
    if status >= 400:
        headers["x-should-retry"] = "false"
    return httpx2.Response(
        status, headers=headers, content=payload, request=request, extensions={"lattice": provenance}
    )


def provenance_headers(provenance: Provenance) -> dict[str, str]:
    """The gateway's own response headers, for what the transport made of its answer."""
    known = {
        "x-request-id": provenance.request_id,
        "x-lattice-runtime": provenance.runtime,
        "x-lattice-work": provenance.work_id,
        SEALING_HEADER: provenance.sealing,
    }
    return {name: value for name, value in known.items() if value}


def error_event(error: LatticeError) -> bytes:
    """An error inside a stream. It is the last event: `[DONE]` never follows."""
    return encode_event(_encode(error.openai_body()))


def done_event() -> bytes:
    """The end of a whole and verified stream."""
    return encode_event(DONE.encode())


def _task(request: httpx2.Request) -> Task | None:
    path = request.url.path.rstrip("/")
    return next((task for task, suffix in PATHS.items() if path.endswith(suffix)), None)


def _media(request: httpx2.Request) -> str:
    return str(request.headers.get("content-type") or "").partition(";")[0].strip().lower()


def _encode(body: Any) -> bytes:
    return msgspec.json.encode(body)
