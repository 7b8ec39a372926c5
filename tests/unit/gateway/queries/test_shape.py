"""The quick look at a bundle agrees with the real reader, however the bytes are cut, and keeps none of them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from lattice.core.errors import LatticeError
from lattice.fhe.serialise.bundle import read_bundle, write_bundle
from lattice.gateway.queries.shape import BundleShape


def accepts(data: bytes, cut: int) -> bool:
    shape = BundleShape()
    try:
        for at in range(0, len(data), cut):
            shape.feed(data[at : at + cut])
        shape.finish()
    except LatticeError as error:
        return error.code != "blob_invalid"
    return True


@given(objects=st.lists(st.binary(max_size=40), min_size=1, max_size=5), cut=st.integers(1, 50))
def test_every_bundle_passes(objects: list[bytes], cut: int) -> None:
    assert accepts(write_bundle(objects), cut)


@given(data=st.binary(max_size=60), cut=st.integers(1, 50))
def test_it_refuses_what_the_reader_refuses(data: bytes, cut: int) -> None:
    try:
        good = bool(read_bundle(data))
    except LatticeError:
        good = False
    assert accepts(data, cut) == good


@pytest.mark.parametrize("claim", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\0\0\0" + b"\xff" * 8])
def test_it_believes_no_absurd_claim(claim: bytes) -> None:
    assert not accepts(claim, 3)
