"""The hot routes by exact path: one dictionary look-up instead of a walk over patterns. Everything else goes on."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send


class Dispatch:
    """Calls the ASGI endpoint of a POST to one of `hot`; `rest` has every other route and the lifespan."""

    def __init__(self, hot: Mapping[str, ASGIApp], rest: Router) -> None:
        self.hot = hot
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route one request."""
        endpoint = self.hot.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await self._rest(scope, receive, send)
        elif scope["method"] == "POST":
            scope["hot_route"] = scope["path"]  # one of ours, so a log may show it
            await endpoint(scope, receive, send)
        else:
            raise HTTPException(405, headers={"Allow": "POST"})
