"""Structured logs without secrets: keys, credentials and prompts never reach a sink, whoever passes them in."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

from lattice.runtime.settings import LogSettings

_SECRET = re.compile(r"\b(?:sk_lat|lbt|rlc|eut)_[A-Za-z0-9_.-]+|(?i:\bbearer\s+)\S+")
_PRIVATE = frozenset(
    {"api_key", "apikey", "authorization", "body", "choices", "content", "cookie", "credential", "input", "messages"}
    | {"password", "payload", "prompt", "secret", "text", "token", "tools", "x-api-key"}
)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
REDACTED = "[redacted]"


def redact(value: Any) -> Any:
    """The value without secrets: members with private names and anything that looks like a credential."""
    if isinstance(value, str):
        return _SECRET.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {k: REDACTED if str(k).lower() in _PRIVATE else redact(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return f"<{len(value)} bytes>" if isinstance(value, bytes | bytearray) else value


def _redacting(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    clean: dict[str, Any] = redact(dict(event))
    return clean


def configure(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Set up structlog once per process, and route the standard library's warnings through the same redaction."""
    stream = stream or sys.stderr
    level = _LEVELS[settings.level]
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # No tracebacks with locals: a frame's variables hold prompts. The exception's type and place are enough.
        structlog.processors.format_exc_info,
        _redacting,
        renderer,
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[*processors[:-1], _stdlib(renderer)]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def _stdlib(renderer: Any) -> Any:
    def render(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        return renderer(logger, method, {k: v for k, v in event.items() if not k.startswith("_")})

    return render
