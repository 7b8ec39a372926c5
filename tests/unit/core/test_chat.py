"""The members of a request that Lattice reads, and errors that name them without quoting the body."""

from __future__ import annotations

import pytest

from lattice.core.chat import Usage, parse_object, parse_shape
from lattice.core.errors import LatticeError


def test_only_the_shape_is_read() -> None:
    shape = parse_shape(b'{"model":"m","stream":true,"messages":"anything","stream_options":{"include_usage":true}}')
    assert (shape.model, shape.stream, shape.choices, shape.max_output_tokens) == ("m", True, 1, None)
    assert shape.stream_options is not None
    assert shape.stream_options.include_usage


@pytest.mark.parametrize(
    ("members", "limit"),
    [
        ("", None),
        (',"max_tokens":7', 7),
        (',"max_completion_tokens":9', 9),
        (',"max_tokens":7,"max_completion_tokens":5', 5),
    ],
)
def test_the_stricter_ceiling_counts(members: str, limit: int | None) -> None:
    assert parse_shape(b'{"model":"m"%s}' % members.encode()).max_output_tokens == limit


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b'{"model":1}',
        b'{"model":"m","max_tokens":0}',
        b'{"model":"m","max_tokens":-1,"max_completion_tokens":5}',
        b'{"model":"m","n":0}',
        b'{"model":"m","n":129}',
        b'{"model":"m","stream":"yes"}',
        b'{"model":"m","messages":' + b"[" * 200_000,
        b'{"model":"m"} trailing',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_bad_shape_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(LatticeError) as caught:
        parse_shape(body)
    assert caught.value.code == "invalid_request"


def test_the_prompt_is_never_quoted() -> None:
    for body in (b'{"model":"m","messages":"my secret', b'{"model":["my secret"]}', b'{"max_tokens":"my secret"}'):
        for parse in (parse_shape, parse_object):
            said = ""
            try:
                parse(body)
            except LatticeError as error:
                said = str(error)
            assert "secret" not in said


def test_a_whole_object_is_read() -> None:
    assert parse_object(b'{"a":[1,{"b":null}]}') == {"a": [1, {"b": None}]}


@pytest.mark.parametrize("body", [b"", b"[]", b'"text"', b"\xff", b"[" * 200_000], ids=lambda body: repr(body[:9]))
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(LatticeError) as caught:
        parse_object(body)
    assert caught.value.code == "invalid_request"


def test_usage_adds_up() -> None:
    assert Usage(3, 4).total_tokens == 7
    assert Usage().total_tokens == 0
