"""Request frames: cut at 1 MiB, joined only in place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.sealing.request import FRAME_BYTES, MAX_FRAME_BYTES, open_body, seal_body

KEY, HASH = b"k" * 32, b"h" * 32


@pytest.mark.parametrize(
    ("size", "count"), [(0, 1), (1, 1), (FRAME_BYTES, 1), (FRAME_BYTES + 1, 2), (3 * FRAME_BYTES, 3)]
)
def test_a_body_has_one_way_to_be_cut(size: int, count: int) -> None:
    body = bytes(size)
    frames = seal_body(KEY, HASH, body)
    assert len(frames) == count
    assert all(len(frame) == MAX_FRAME_BYTES for frame in frames[:-1])
    assert open_body(KEY, HASH, frames) == body


@given(st.binary(max_size=2000))
@settings(max_examples=50)
def test_bodies_come_back(body: bytes) -> None:
    assert open_body(KEY, HASH, seal_body(KEY, HASH, body)) == body


def test_frames_open_in_their_place_and_number_only() -> None:
    a, b, c = seal_body(KEY, HASH, bytes(2 * FRAME_BYTES + 5))
    for frames in ((), (a,), (a, b), (b, c), (a, c), (b, a, c), (a, b, b), (a, b, c, c), (c,), (a, b, c, a)):
        with pytest.raises(LatticeError, match="envelope_invalid"):
            open_body(KEY, HASH, frames)


def test_another_key_or_header_does_not_open() -> None:
    frames = seal_body(KEY, HASH, b"body")
    for key, header_hash in ((b"x" * 32, HASH), (KEY, b"x" * 32)):
        with pytest.raises(LatticeError, match="envelope_invalid"):
            open_body(key, header_hash, frames)
