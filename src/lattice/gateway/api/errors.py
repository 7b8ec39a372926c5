"""Turns the frameworks' errors into catalogued ones, naming the field and never its value."""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from lattice.core.errors import LatticeError


def invalid_request(error: RequestValidationError) -> LatticeError:
    """The catalogued error; the caller's own input, which FastAPI would echo, is left out."""
    first = error.errors()[0]
    kind, (place, *path) = first["type"], first.get("loc") or ("body",)
    if kind == "json_invalid":
        return LatticeError("invalid_request", "The body is not valid JSON.")
    if kind == "extra_forbidden":  # the member's name is the caller's own text
        return LatticeError("invalid_request", f"The {place} has a member that this route does not know.")
    where = ".".join(map(str, path)) or str(place)
    return LatticeError("invalid_request", f"`{where}` is {'missing' if kind == 'missing' else 'not valid'}.")


def http_error(error: HTTPException) -> LatticeError:
    """The catalogued error for what Starlette or FastAPI raise themselves: no such route, a body nested too deeply."""
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    return LatticeError(codes.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal"))
