"""Turning what went wrong outside into catalogued errors: refused answers, dead connections, an engine's own words."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import msgspec

from lattice.client.retry import NOT_DELIVERED
from lattice.core.errors import LatticeError, catalogue, error_from_body

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def decode_json(content: bytes) -> Any:
    """Decode JSON from outside, or None for what is not JSON."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def answer_error(status: int, content: bytes, headers: httpx2.Headers) -> LatticeError:
    """The error of an error answer, with `Retry-After` where the body names no wait of its own."""
    request_id = headers.get("x-request-id")
    error = reported_error(status, decode_json(content), request_id)
    if error.retry_after_ms is None:
        error.retry_after_ms = _retry_after_ms(headers.get("retry-after"))
    return error


def reported_error(status: int, body: Any, request_id: str | None = None) -> LatticeError:
    """The error that a body reports: ours in either shape, or the engine's own behind a gateway that passed it on."""
    inner = body.get("error") if isinstance(body, dict) else None
    if isinstance(inner, dict):
        code = inner.get("code")
        if not isinstance(code, str) or code not in catalogue():
            return engine_error(status, inner, request_id)
    error = error_from_body(status, body, request_id)
    if not isinstance(error.retry_after_ms, int) or error.retry_after_ms < 0:
        error.retry_after_ms = None
    return error


def engine_error(status: int, inner: Any, request_id: str | None = None) -> LatticeError:
    """The machine's engine refused. Its own words may quote the prompt: they are in `details`, not in the text."""
    fields = inner if isinstance(inner, dict) else {}
    names = [n for k in ("type", "code") if isinstance(n := fields.get(k), str) and _IDENTIFIER.fullmatch(n)]
    label = f" ({', '.join(names)})" if names else ""
    own_words = fields.get("message")
    return LatticeError(
        "invalid_request" if 400 <= status < 500 else "runtime_failed",
        f"The machine's engine answered with status {status}{label}.",
        details={"engine_message": own_words} if isinstance(own_words, str) else None,
        request_id=request_id,
    )


def unreachable(failure: httpx2.RequestError) -> LatticeError:
    """No answer came. Says whether the request may have arrived, since that decides whether to ask again."""
    name = type(failure).__name__
    if isinstance(failure, NOT_DELIVERED):
        return LatticeError("gateway_unreachable", f"No connection to the gateway ({name}); nothing was sent.")
    if isinstance(failure, httpx2.TimeoutException):
        return LatticeError("gateway_unreachable", f"No answer in time ({name}); the work may still be running.")
    return LatticeError("gateway_unreachable", f"The connection broke ({name}); the request may have arrived.")


def broken(failure: httpx2.RequestError) -> LatticeError:
    """The connection broke after the answer had begun, so nothing is sent again."""
    name = type(failure).__name__
    return LatticeError("gateway_unreachable", f"The connection broke in the middle of the answer ({name}).")


def _retry_after_ms(text: str | None) -> int | None:
    try:
        seconds = float(text) if text else -1.0
    except ValueError:
        return None
    return int(seconds * 1000) if 0 <= seconds < 86_400 else None
