"""The hot routes by exact path: one dictionary look-up instead of a walk over patterns. Everything else goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lattice.core.errors import LatticeError

T = TypeVar("T")


class Dispatch:
    """Calls the ASGI endpoint of a POST to one of `hot`; `rest` has every other route and the lifespan.

    Of the paths in `shared` the rest has the other methods.
    """

    def __init__(self, hot: Mapping[str, ASGIApp], rest: Router, shared: Collection[str] = ()) -> None:
        self.hot = hot
        self._rest = rest
        self.shared = frozenset(shared)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request."""
        endpoint = self.hot.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None or (scope["method"] != "POST" and scope["path"] in self.shared):
            await self._rest(scope, receive, send)
        elif scope["method"] == "POST":
            scope["hot_route"] = scope["path"]  # one of ours, so a log may show it
            await endpoint(scope, receive, send)
        else:
            raise HTTPException(405, headers={"Allow": "POST"})


def direct(handler: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """A handler that FastAPI documents, called without FastAPI: finding and wrapping it there takes long."""

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handler(Request(scope, receive, send))
        await response(scope, receive, send)

    return endpoint


def read_parameters(request: Request, kind: type[T]) -> T:
    """The query parameters as a struct; `invalid_request` names the one that is wrong."""
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise LatticeError("invalid_request", f"The query parameters are not valid: {error}.") from None
