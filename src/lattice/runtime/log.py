"""Structured logs without secrets: keys, credentials and prompts never reach a sink, whoever passes them in."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from lattice.core.redaction import redact
from lattice.runtime.settings import LogSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


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
