"""Length-prefixed fields: what is packed is read back, and nothing else is."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.sealing.wire import FieldReader, decode_json, pack


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_fields_come_back_as_they_were(fields: list[bytes]) -> None:
    reader = FieldReader(pack(*fields), "thing")
    assert [reader.field(64) for _ in fields] == fields
    reader.finish()


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_no_two_lists_of_fields_pack_alike(one: list[bytes], two: list[bytes]) -> None:
    assert (pack(*one) == pack(*two)) == (one == two)


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\0\0\x02a", b"\xff\xff\xff\xff"])
def test_a_cut_field_is_the_readers_error(data: bytes) -> None:
    with pytest.raises(LatticeError) as caught:
        FieldReader(data, "thing", "receipt_invalid").field(16)
    assert caught.value.code == "receipt_invalid"


def test_lengths_are_bounded_both_ways() -> None:
    data = pack(b"abc")
    assert FieldReader(data, "thing").field(3, at_least=3) == b"abc"
    for at_most, at_least in ((2, 0), (9, 4)):
        with pytest.raises(LatticeError, match="forbidden length"):
            FieldReader(data, "thing").field(at_most, at_least=at_least)


def test_bytes_after_the_end_are_refused() -> None:
    reader = FieldReader(pack(b"a") + b"x", "thing")
    reader.field(1)
    with pytest.raises(LatticeError, match="after its end"):
        reader.finish()


@pytest.mark.parametrize("data", [b"", b"{", b'"\xff"', b"[" * 200_000, b'"secret"'])
def test_json_errors_are_typed_and_quote_nothing(data: bytes) -> None:
    with pytest.raises(LatticeError) as caught:
        decode_json(msgspec.json.Decoder(int), data, "thing")
    assert caught.value.code == "envelope_invalid"
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
