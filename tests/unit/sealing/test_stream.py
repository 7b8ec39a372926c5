"""Records of a reply: any chunking gives the same records, and lengths are judged before they are buffered."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.sealing.stream import (
    MAX_RECORD_BYTES,
    Record,
    RecordReader,
    RecordType,
    decode_error,
    decode_frame,
    encode_error,
    encode_frame,
    encode_record,
)

records = st.lists(
    st.one_of(
        st.just(Record(RecordType.KEEPALIVE, b"")),
        st.builds(Record, st.just(RecordType.FRAME), st.binary(max_size=40)),
        st.builds(Record, st.just(RecordType.RECEIPT), st.binary(max_size=40)),
        st.builds(Record, st.just(RecordType.ERROR), st.binary(max_size=40)),
    ),
    max_size=6,
)


@given(records, st.lists(st.integers(0, 300), max_size=6))
def test_any_chunking_gives_the_same_records(expected: list[Record], cuts: list[int]) -> None:
    wire = b"".join(encode_record(*record) for record in expected)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    reader = RecordReader()
    got = [record for a, b in pairwise(edges) for record in reader.feed(wire[a:b])]
    assert got == expected
    assert reader.pending == 0


def test_a_cut_record_shows_as_pending() -> None:
    reader = RecordReader()
    assert reader.feed(encode_frame(b"frame", 1, False)[:-1]) == []
    assert reader.pending > 0


@given(st.binary(max_size=64), st.integers(0, 2**53 - 1), st.booleans())
def test_frame_records_come_back(frame: bytes, tokens: int, final: bool) -> None:
    (record,) = RecordReader().feed(encode_frame(frame, tokens, final))
    assert record.type is RecordType.FRAME
    assert decode_frame(record.payload) == (frame, tokens, final)


@pytest.mark.parametrize("payload", [b"", bytes(8), bytes(8) + b"\x02", b"\xff" * 8 + b"\x00"])
def test_a_malformed_frame_record_is_refused(payload: bytes) -> None:
    with pytest.raises(LatticeError, match="reply_invalid"):
        decode_frame(payload)


@pytest.mark.parametrize(
    "head", [b"\x04\0\0\0\0", b"\xff\0\0\0\0", b"\0\0\0\0\x01", b"\x01\xff\xff\xff\xff", b"\x02\0\0\x20\x01"]
)
def test_a_head_is_judged_before_its_payload_arrives(head: bytes) -> None:
    reader = RecordReader()
    with pytest.raises(LatticeError, match="reply_invalid"):
        reader.feed(head)
    with pytest.raises(LatticeError, match="reply_invalid"):
        reader.feed(encode_record(0))


def test_a_reader_can_be_stricter() -> None:
    with pytest.raises(LatticeError, match="reply_invalid"):
        RecordReader(max_bytes=4).feed(encode_record(1, b"12345"))


def test_a_record_that_no_reader_takes_is_not_made() -> None:
    for kind, payload in ((0, b"x"), (2, bytes(9000)), (1, bytes(MAX_RECORD_BYTES + 1))):
        with pytest.raises(ValueError, match="too long"):
            encode_record(kind, payload)
    with pytest.raises(ValueError, match="4"):
        encode_record(4, b"")


def test_errors_come_back_as_themselves() -> None:
    error = LatticeError("queue_full", "The machine is busy.", retry_after_ms=1500, request_id="req_1")
    (record,) = RecordReader().feed(encode_error(error))
    again = decode_error(record.payload)
    assert (again.code, again.message, again.retry_after_ms, again.request_id) == (
        "queue_full",
        "The machine is busy.",
        1500,
        "req_1",
    )


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"\xff", b"{" * 200_000, b'{"error":"no_such_code"}', b'{"error":{"code":[]}}']
)
def test_an_error_that_makes_no_sense_is_still_an_error(payload: bytes) -> None:
    assert decode_error(payload).code == "gateway_unreachable"
