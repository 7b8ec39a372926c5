"""Every route of encrypted inference's control plane."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastapi import APIRouter

from lattice.gateway.encrypted import (
    event_routes,
    model_routes,
    token_routes,
    upload_routes,
    user_routes,
    version_routes,
)

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

_STREAMED = re.compile(r"/v1/uploads/[^/]+/parts/[^/]+")


def routers(gateway: Gateway) -> tuple[APIRouter, ...]:
    """The routers."""
    modules = (upload_routes, model_routes, event_routes, version_routes, token_routes, user_routes)
    return tuple(module.router(gateway) for module in modules)


def reads_own_body(method: str, path: str) -> bool:
    """Whether the route bounds and streams its body itself: it must not be read whole before."""
    return method == "PUT" and _STREAMED.fullmatch(path) is not None
