"""Makes FastAPI answer with the catalogue: its own validation and routing errors included."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lattice.core.errors import LatticeError
from lattice.gateway.api.errors import invalid_request
from lattice.gateway.http.boundary import as_lattice_error, error_body, error_headers, kept_headers


def install_error_handlers(app: FastAPI) -> None:
    """Register the handlers on a FastAPI application."""

    async def on_lattice(request: Request, error: Exception) -> JSONResponse:
        response = _answer(request, as_lattice_error(error))
        response.headers.update({name.decode(): value.decode() for name, value in kept_headers(error)})
        return response

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        if not isinstance(error, RequestValidationError):
            raise error
        return _answer(request, invalid_request(error))

    app.add_exception_handler(LatticeError, on_lattice)
    app.add_exception_handler(HTTPException, on_lattice)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _answer(request: Request, error: LatticeError) -> JSONResponse:
    error.request_id = request.scope.get("state", {}).get("request_id")
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return JSONResponse(error_body(error, request.url.path), error.status, headers)
