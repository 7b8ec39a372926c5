"""Trailers: bounded on both sides, tolerant of members that a later version adds."""

from __future__ import annotations

from typing import Any

import pytest

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.sealing.trailer import MAX_TOKENS, Trailer, join_trailer, split_trailer
from lattice.sealing.wire import pack


def test_trailer_and_payload_come_apart_again() -> None:
    trailer = Trailer(status=418, finish_reason="length", usage=Usage(1, 2), transcript_hash="h", model_digest="d")
    assert split_trailer(join_trailer(trailer, b"payload")) == (trailer, b"payload")


def test_members_of_a_later_version_are_ignored() -> None:
    assert split_trailer(pack(b'{"status":200,"later":[1]}'))[0] == Trailer()


@pytest.mark.parametrize(
    "change",
    [
        {"status": 99},
        {"status": 600},
        {"finish_reason": "x" * 65},
        {"model_digest": "x" * 129},
        {"usage": Usage(-1, 0)},
        {"usage": Usage(0, MAX_TOKENS + 1)},
        {"transcript_hash": "x" * 5000},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_trailer_that_would_be_refused_is_not_sealed(change: dict[str, Any]) -> None:
    with pytest.raises(LatticeError, match="reply_invalid"):
        join_trailer(Trailer(**change), b"")


@pytest.mark.parametrize("plaintext", [b"", b"\0\0\0\x09{}", pack(b""), pack(b"[]"), b"\xff\xff\xff\xff"])
def test_a_last_frame_without_a_trailer_is_refused(plaintext: bytes) -> None:
    with pytest.raises(LatticeError, match="reply_invalid"):
        split_trailer(plaintext)
