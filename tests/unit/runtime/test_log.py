"""Logs hold no secrets, whoever passes them in."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from lattice.runtime.log import configure, redact
from lattice.runtime.settings import LogSettings


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "value",
    [
        {"authorization": "canary"},
        {"Prompt": "canary"},
        {"nested": {"messages": ["canary"]}},
        {"list": [{"api_key": "canary"}]},
        "Bearer canary",
        "key sk_lat_canary end",
        "rlc_canary",
        ("lbt_canary.canary",),
        b"canary",
    ],
)
def test_secrets_do_not_pass(value: object) -> None:
    assert "canary" not in str(redact(value))


def test_ordinary_values_pass() -> None:
    value = {"work": "work_1", "count": 3, "state": None, "list": ["a", 1.5]}
    assert redact(value) == value


def test_json_lines_levels_and_the_standard_library() -> None:
    out = io.StringIO()
    configure(LogSettings(level="info", format="json"), out)
    structlog.get_logger("x").info("event", token="canary", reason="Bearer canary")
    structlog.get_logger("x").debug("hidden")
    logging.getLogger("uvicorn.error").warning("gave %s", "sk_lat_canary")
    logging.getLogger("aiohttp").info("hidden too")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["event", "gave [redacted]"]
    assert "canary" not in out.getvalue()


def test_an_exceptions_text_is_redacted_too() -> None:
    out = io.StringIO()
    configure(LogSettings(format="json"), out)
    try:
        raise ValueError("rlc_canary")
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "canary" not in out.getvalue()
    assert "ValueError" in out.getvalue()


def test_the_console_form() -> None:
    out = io.StringIO()
    configure(LogSettings(format="console"), out)
    structlog.get_logger().warning("event", work="work_1")
    assert "work_1" in out.getvalue()
