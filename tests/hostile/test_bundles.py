"""Bundles from strangers: a count or a length that lies costs a typed error and no memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.serialise.bundle import BundleReader, bundle_bytes, read_bundle, read_stream, write_bundle


def refused(data: bytes, size: int = 7) -> None:
    """By both readers."""
    for read in (read_bundle, lambda d: list(read_stream(d[i : i + size] for i in range(0, len(d), size)))):
        with pytest.raises(LatticeError) as caught:
            read(data)
        assert caught.value.code == "blob_invalid"


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 50))
def test_a_bundle_reads_as_it_was_written_in_chunks_of_any_size(objects: list[bytes], size: int) -> None:
    data = write_bundle(objects)
    assert len(data) == bundle_bytes(objects)
    assert [bytes(each) for each in read_bundle(data)] == objects
    assert list(read_stream(data[i : i + size] for i in range(0, len(data), size))) == objects


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=3), st.data())
def test_every_cut_and_every_appendix_is_refused(objects: list[bytes], data: st.DataObject) -> None:
    whole = write_bundle(objects)
    refused(whole[: data.draw(st.integers(0, len(whole) - 1))])
    refused(whole + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff\xff",
        b"\x01\0\0\0" + b"\xff" * 8,
        b"\x01\0\0\0" + (1 << 40).to_bytes(8, "little") + b"x" * 64,
        b"\x00\x02\x00\x00" + bytes(8),
    ],
)
def test_lengths_that_lie_cost_no_memory(data: bytes) -> None:
    tracemalloc.start()
    refused(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_streamed_object_is_bounded_before_it_arrives() -> None:
    reader = BundleReader(max_object=10)
    with pytest.raises(LatticeError):
        list(reader.feed((1).to_bytes(4, "little") + (11).to_bytes(8, "little")))
