"""Health, readiness, metrics and the page that explains every error code."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, JSONResponse, Response
from sqlalchemy import Connection, text

from lattice import __version__
from lattice.core.errors import LatticeError, catalogue
from lattice.core.relay import PROTOCOL_VERSION

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway


def router(gateway: Gateway) -> APIRouter:
    """Routes that need no key and tell nothing about anybody."""
    api = APIRouter(tags=["health"])

    @api.get("/healthz")
    async def alive() -> JSONResponse:
        """The process answers."""
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "relay_protocol": PROTOCOL_VERSION,
                "now_ms": gateway.clock.now_ms(),
            }
        )

    @api.get("/readyz")
    async def ready() -> JSONResponse:
        """The database answers and the gateway takes work."""
        if gateway.hub.draining:
            raise LatticeError("draining")
        await gateway.store.read(_probe)
        return JSONResponse({"status": "ready"})

    @api.get("/metrics")
    async def metrics() -> Response:
        """Prometheus text."""
        return Response(gateway.metrics.render(), media_type="text/plain; version=0.0.4")

    @api.get("/docs/errors", include_in_schema=False)
    async def errors() -> HTMLResponse:
        """Where `doc` in an error body points."""
        return HTMLResponse(_ERRORS_PAGE)

    return api


def _probe(conn: Connection) -> None:
    conn.execute(text("SELECT 1"))


def _render_errors() -> str:
    rows = "".join(
        f'<tr id="{spec.code}"><td><code>{spec.code}</code><td>{spec.status}'
        f"<td>{html.escape(spec.meaning)}<td>{html.escape(spec.remedy)}"
        for spec in catalogue().values()
    )
    return (
        "<!doctype html><meta charset=utf-8><title>Lattice errors</title>"
        "<style>body{font:16px system-ui;margin:2rem;max-width:75rem}td{padding:.4rem;vertical-align:top;"
        "border-top:1px solid #ddd}tr:target{background:#ffd}</style><h1>Errors</h1>"
        f"<table><tr><th>code<th>status<th>meaning<th>what to do{rows}</table>"
    )


_ERRORS_PAGE = _render_errors()
