"""Makes FastAPI answer with the catalogue: its own validation and routing errors included."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lattice.core.errors import LatticeError
from lattice.gateway.http.boundary import as_lattice_error, error_body, error_headers


def install_error_handlers(app: FastAPI) -> None:
    """Register the handlers on a FastAPI application."""

    async def on_lattice(request: Request, error: Exception) -> JSONResponse:
        return _answer(request, as_lattice_error(error))

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        # pydantic's own text quotes the input, which may hold a secret; only the place and the rule go out.
        first = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
        place = ".".join(str(part) for part in first.get("loc", ())[1:]) or "body"
        return _answer(request, LatticeError("invalid_request", f"`{place}`: {first.get('msg', 'invalid')}."))

    app.add_exception_handler(LatticeError, on_lattice)
    app.add_exception_handler(HTTPException, on_lattice)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _answer(request: Request, error: LatticeError) -> JSONResponse:
    error.request_id = request.scope.get("state", {}).get("request_id")
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return JSONResponse(error_body(error, request.url.path), error.status, headers)
