"""The error catalogue, read from `spec/errors.toml`: one exception type, one wire shape, one page of docs.

`raise LatticeError("runtime_unreachable", "no daemon has polled for lat_7f3a in 4 minutes")` is all a caller writes;
status, remedy and retry safety come from the catalogue. Messages name the thing and its state, never caller data.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

DOC_PATH = "/docs/errors"


class ErrorSpec(NamedTuple):
    """One row of the catalogue."""

    code: str
    status: int
    type: str
    meaning: str
    remedy: str
    retry: bool


@cache
def catalogue() -> dict[str, ErrorSpec]:
    """Every catalogued error, by code, in the file's order."""
    table = tomllib.loads(files(__package__).joinpath("errors.toml").read_text("utf-8"))
    return {code: ErrorSpec(code=code, **row) for code, row in table.items()}


class LatticeError(Exception):
    """A catalogued failure. `code` is stable and is what programs branch on.

    `details` are extra members of the wire body (for example `key_config` or `candidates`); they must not hold secrets
    or prompt text. `retry_after_ms` becomes `Retry-After` and `retryAfterMs`.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        details: dict[str, Any] | None = None,
        retry_after_ms: int | None = None,
        request_id: str | None = None,
    ) -> None:
        self.spec = catalogue()[code]
        self.code = code
        self.message = message or self.spec.meaning
        self.details = details or {}
        self.retry_after_ms = retry_after_ms
        self.request_id = request_id
        super().__init__(f"{code}: {self.message}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.code, self.message, self.details, self.retry_after_ms, self.request_id))

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.spec.status

    @property
    def doc(self) -> str:
        """Where the gateway explains this code, relative to its own address."""
        return f"{DOC_PATH}#{self.code}"

    def body(self) -> dict[str, Any]:
        """The wire shape of Lattice's own routes."""
        shape: dict[str, Any] = {
            "error": self.code,
            "message": f"{self.message} {self.spec.remedy}",
            "doc": self.doc,
            **self.details,
        }
        if self.retry_after_ms is not None:
            shape["retryAfterMs"] = self.retry_after_ms
        if self.request_id:
            shape["request_id"] = self.request_id
        return shape

    def openai_body(self) -> dict[str, Any]:
        """OpenAI's nested shape with our code in `error.code`, so that its SDKs raise the right class."""
        flat = self.body()
        del flat["error"]
        return {"error": {"code": self.code, "type": self.spec.type, "param": None, **flat}}


def _rebuild(
    code: str, message: str, details: dict[str, Any], retry_after_ms: int | None, request_id: str | None
) -> LatticeError:
    return LatticeError(code, message, details=details, retry_after_ms=retry_after_ms, request_id=request_id)


def error_from_body(status: int, body: Any, request_id: str | None = None) -> LatticeError:
    """Rebuild the error from either wire shape; a body that is neither becomes `gateway_unreachable`."""
    fields = body.get("error") if isinstance(body, dict) else None
    flat = dict(body) if isinstance(fields, str) else dict(fields) if isinstance(fields, dict) else {}
    code = flat.pop("error", None) or flat.pop("code", None)
    if not isinstance(code, str) or code not in catalogue():
        return LatticeError("gateway_unreachable", f"unexpected answer with HTTP status {status}")
    remedy = catalogue()[code].remedy
    message = str(flat.pop("message", "")).removesuffix(remedy).strip() or None
    for name in ("code", "type", "param", "doc"):
        flat.pop(name, None)
    wait = flat.pop("retryAfterMs", None)
    return LatticeError(
        code,
        message,
        retry_after_ms=wait if isinstance(wait, int) and wait >= 0 else None,
        request_id=flat.pop("request_id", None) or request_id,
        details=flat,
    )
