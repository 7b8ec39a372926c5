"""Structured logs with redaction: whatever looks like a secret, and every field that could hold content, is masked."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = re.compile(r"\b(sk_lat|lbt|rlc|eut)_[A-Za-z0-9_\-.]+|(?i:bearer)\s+\S+")
_FORBIDDEN = frozenset({"authorization", "body", "messages", "prompt", "content", "secret", "token", "payload"})


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: mask secrets in values and drop fields that may hold content."""
    for name, value in event.items():
        if name in _FORBIDDEN:
            event[name] = "[redacted]"
        elif isinstance(value, str):
            event[name] = _SECRET.sub("[redacted]", value)
    return event


def configure_logging(level: str, json: bool) -> None:
    """Send all logs, the standard library's too, to standard error through the redactor."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    renderer: Any = structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=False)
    number = getattr(logging, level.upper(), logging.INFO)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
