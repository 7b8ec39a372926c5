"""Headers: exact bytes in, judged values out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lattice.core.errors import LatticeError
from lattice.sealing.header import MAX_HEADER_BYTES, MAX_LIFE_MS, Header, decode_header, encode_header
from lattice.sealing.suites import Suite
from tests.unit.sealing.conftest import NOW, RUNTIME

GOOD: dict[str, Any] = {
    "version": 1,
    "suite": Suite.X25519.value,
    "runtime": RUNTIME,
    "key_id": "0123456789abcdef",
    "work_id": "work_01",
    "sender": "A" * 43,
    "issued_at_ms": NOW,
    "expires_at_ms": NOW + 1,
    "model": "lattice:personal:lat_x:Smol LM/2",
    "max_output_tokens": 0,
    "stream": False,
    "task": "embeddings",
    "minimum_trust": 4,
}


def encoded(**changes: Any) -> bytes:
    value = {**GOOD, **changes}
    return json.dumps({k: v for k, v in value.items() if v is not ...}).encode()


def test_a_header_is_read_as_it_was_written() -> None:
    header = decode_header(encoded())
    assert decode_header(encode_header(header)) == header
    assert isinstance(header, Header)


def test_only_minimum_trust_may_be_left_out_beside_the_version() -> None:
    assert decode_header(encoded(minimum_trust=...)).minimum_trust == 0
    for name in GOOD.keys() - {"minimum_trust", "version"}:
        with pytest.raises(LatticeError, match="envelope_invalid"):
            decode_header(encoded(**{name: ...}))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2},
        {"version": "1"},
        {"suite": "none"},
        {"runtime": ""},
        {"runtime": "a" * 65},
        {"runtime": "lat_x\n"},
        {"key_id": "../key"},
        {"work_id": "work 1"},
        {"work_id": "work_\u00e9"},
        {"sender": "A" * 42},
        {"issued_at_ms": -1},
        {"issued_at_ms": 1.5},
        {"issued_at_ms": True},
        {"expires_at_ms": 2**53},
        {"expires_at_ms": NOW},
        {"expires_at_ms": NOW + MAX_LIFE_MS + 1},
        {"model": ""},
        {"model": "m" * 257},
        {"model": "m\x00"},
        {"model": "m\n"},
        {"max_output_tokens": -1},
        {"max_output_tokens": 2**31},
        {"stream": 1},
        {"stream": None},
        {"task": "shell"},
        {"minimum_trust": 5},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_member_out_of_its_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LatticeError) as caught:
        decode_header(encoded(**change))
    assert caught.value.code == "envelope_invalid"


def test_the_last_of_two_equal_members_counts_as_the_spec_says() -> None:
    doubled = encoded(model="first")[:-1] + b', "model": "second"}'
    assert decode_header(doubled).model == "second"


def test_a_long_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(LatticeError, match="too long"):
        decode_header(encoded() + b" " * MAX_HEADER_BYTES)


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"{" * 3000])
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(LatticeError, match="envelope_invalid"):
        decode_header(data)
