"""What must never reach a log: credentials wherever they stand, and every member that could hold content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"

_SECRET = re.compile(r"\b(?:sk_lat|lbt|rlc|eut)_[A-Za-z0-9_.-]+|(?i:\bbearer\s+)\S+")
_PRIVATE = frozenset(
    {"api_key", "apikey", "authorization", "body", "choices", "content", "cookie", "credential", "input", "messages"}
    | {"password", "payload", "prompt", "secret", "text", "token", "tools", "x-api-key"}
)


def redact(value: Any) -> Any:
    """The value without secrets: members with private names and anything that looks like a credential."""
    if isinstance(value, str):
        return _SECRET.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {k: REDACTED if str(k).lower() in _PRIVATE else redact(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return f"<{len(value)} bytes>" if isinstance(value, bytes | bytearray) else value
