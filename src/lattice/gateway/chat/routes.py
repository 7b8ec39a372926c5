"""`POST /v1/chat/completions` and `/v1/embeddings`: authenticate, read the body, and pick the sealing mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from lattice.core.errors import LatticeError
from lattice.gateway.chat.plain import serve_plain
from lattice.gateway.chat.sealed import serve_sealed
from lattice.gateway.http.exchange import Exchange
from lattice.gateway.identity.scopes import Scope
from lattice.sealing.header import Task
from lattice.sealing.stream import MEDIA_ENVELOPE

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

MODES = ("gateway", "end_to_end")


class InferenceEndpoint:
    """One of the two routes, as a plain ASGI endpoint."""

    def __init__(self, gateway: Gateway, task: Task) -> None:
        self._gateway = gateway
        self._task = task

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        gateway = self._gateway
        exchange = Exchange(scope, receive, send)
        key = await gateway.authenticate_headers(exchange.headers)
        key.require_scope(Scope.INFERENCE)
        mode = _mode(exchange)
        body = await exchange.body(gateway.settings.max_body_bytes, gateway.settings.body_seconds)
        serve = serve_sealed if mode == "end_to_end" else serve_plain
        await serve(gateway, exchange, key, body, self._task)


def _mode(exchange: Exchange) -> str:
    """The mode that the body is in; a mode that is demanded and not met is refused, never downgraded."""
    is_sealed = exchange.headers.get("content-type", "").partition(";")[0].strip() == MEDIA_ENVELOPE
    mode = "end_to_end" if is_sealed else "gateway"
    demanded = exchange.headers.get("x-lattice-sealing")
    if demanded is None or demanded == mode:
        return mode
    if demanded not in MODES:
        raise LatticeError("invalid_request", f"`x-lattice-sealing` must be one of {', '.join(MODES)}.")
    raise LatticeError("sealing_mode_unavailable", f"The body arrived in mode `{mode}`, not `{demanded}`.")
