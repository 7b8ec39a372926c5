"""What changes in a caller's request."""

from __future__ import annotations

from typing import Any

import pytest

from lattice.runtime.requests import prepare_chat, wants_usage


def prepared(body: dict[str, Any], ceiling: int = 10, stream: bool = False) -> dict[str, Any]:
    prepare_chat(body, "local", ceiling, stream)
    return body


def test_unknown_members_pass_through() -> None:
    body = prepared({"model": "x", "messages": [], "tools": [1], "weird": {"a": None}, "temperature": 0})
    assert body == {
        "model": "local",
        "messages": [],
        "tools": [1],
        "weird": {"a": None},
        "temperature": 0,
        "max_tokens": 10,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_tokens": 10}),
        ({"max_tokens": 3}, {"max_tokens": 3}),
        ({"max_tokens": 11}, {"max_tokens": 10}),
        ({"max_tokens": None}, {"max_tokens": 10}),
        ({"max_tokens": -1}, {"max_tokens": 10}),
        ({"max_tokens": True}, {"max_tokens": 10}),
        ({"max_tokens": "9999"}, {"max_tokens": 10}),
        ({"max_completion_tokens": 4}, {"max_tokens": 4, "max_completion_tokens": 4}),
        ({"max_completion_tokens": 40}, {"max_tokens": 10, "max_completion_tokens": 10}),
        ({"n_predict": -1}, {"max_tokens": 10, "n_predict": 10}),
        ({"n_predict": 99, "max_tokens": 2}, {"max_tokens": 2, "n_predict": 10}),
    ],
)
def test_no_name_of_the_ceiling_gets_past_the_header(given: dict[str, Any], expected: dict[str, Any]) -> None:
    body = prepared(dict(given))
    del body["model"]
    assert body == expected


def test_a_stream_always_reports_usage_and_keeps_other_options() -> None:
    body = prepared({"stream_options": {"include_usage": False, "x": 1}}, stream=True)
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True, "x": 1}


def test_the_header_decides_whether_it_is_a_stream() -> None:
    body = prepared({"stream": True, "stream_options": {"include_usage": True}})
    assert body["stream"] is False
    assert "stream_options" not in body


@pytest.mark.parametrize(
    ("body", "asked"),
    [({}, False), ({"stream_options": None}, False), ({"stream_options": {"include_usage": True}}, True)],
)
def test_who_asked_for_usage(body: dict[str, Any], asked: bool) -> None:
    assert wants_usage(body) is asked
