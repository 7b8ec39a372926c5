"""The catalogue is complete, and every error survives both wire shapes, pickling and nonsense."""

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lattice.core.errors import LatticeError, catalogue, error_from_body
from lattice.core.relay import FAIL_CODES

SPEC = Path(__file__).parents[3] / "spec" / "errors.toml"
EVERY_CODE = sorted(catalogue())
OPENAI_TYPES = {
    "api_error",
    "authentication_error",
    "conflict_error",
    "insufficient_quota",
    "invalid_request_error",
    "permission_error",
    "rate_limit_error",
}


def facts(error: LatticeError) -> tuple[Any, ...]:
    return error.code, error.message, error.details, error.retry_after_ms, error.request_id, error.status


def test_the_packaged_catalogue_is_that_of_the_specification() -> None:
    assert list(tomllib.loads(SPEC.read_text("utf-8"))) == list(catalogue())


@pytest.mark.parametrize("code", EVERY_CODE)
def test_every_row_is_complete(code: str) -> None:
    row = catalogue()[code]
    assert 400 <= row.status < 600
    assert row.type in OPENAI_TYPES
    assert row.meaning.endswith(".")
    assert row.remedy
    assert isinstance(row.retry, bool)


def test_the_codes_that_a_runtime_may_fail_with_are_catalogued() -> None:
    assert set(catalogue()) >= FAIL_CODES


@pytest.mark.parametrize("code", EVERY_CODE)
def test_both_wire_shapes_come_back_as_the_same_error(code: str) -> None:
    error = LatticeError(
        code, "It happened.", details={"candidates": [{"runtime": "lat_1"}]}, retry_after_ms=1500, request_id="req_1"
    )
    for body in (error.body(), error.openai_body()):
        assert facts(error_from_body(error.status, body)) == facts(error)


@pytest.mark.parametrize("code", EVERY_CODE)
def test_an_error_without_extras_comes_back_too(code: str) -> None:
    error = LatticeError(code)
    for body in (error.body(), error.openai_body()):
        assert facts(error_from_body(error.status, body)) == facts(error)


def test_the_shapes_are_the_documented_ones() -> None:
    error = LatticeError("queue_full", "Busy.", retry_after_ms=7, request_id="req_1")
    flat = error.body()
    assert flat["error"] == "queue_full"
    assert flat["message"] == f"Busy. {error.spec.remedy}"
    assert (flat["doc"], flat["retryAfterMs"], flat["request_id"]) == ("/docs/errors#queue_full", 7, "req_1")
    nested = error.openai_body()["error"]
    assert (nested["code"], nested["type"], nested["param"]) == ("queue_full", "rate_limit_error", None)


def test_the_callers_request_id_fills_in() -> None:
    assert error_from_body(429, LatticeError("queue_full").body(), "req_2").request_id == "req_2"


@pytest.mark.parametrize("code", EVERY_CODE)
def test_errors_travel_between_processes(code: str) -> None:
    error = LatticeError(code, "It happened.", details={"a": 1}, retry_after_ms=2, request_id="req_3")
    again = pickle.loads(pickle.dumps(error))
    assert facts(again) == facts(error)
    assert str(again) == str(error) == f"{code}: It happened."


@pytest.mark.parametrize(
    "body", [None, "", [], {}, {"error": "nonsense"}, {"error": {"code": "nonsense"}}, {"error": 7}]
)
def test_a_body_of_neither_shape_is_a_gateway_that_does_not_answer(body: Any) -> None:
    error = error_from_body(418, body)
    assert error.code == "gateway_unreachable"
    assert "418" in error.message


@pytest.mark.parametrize("body", [{"error": {"code": []}}, {"error": {"code": {"a": 1}}}], ids=str)
def test_a_code_that_is_no_text_is_a_gateway_that_does_not_answer(body: Any) -> None:
    assert error_from_body(500, body).code == "gateway_unreachable"


def test_an_uncatalogued_code_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        LatticeError("no_such_code")
