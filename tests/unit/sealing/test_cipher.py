"""The frame cipher: HKDF as RFC 5869 says, and a nonce that counts even when opening fails."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.sealing.cipher import FrameCipher, derive_key


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=1, max_size=64), st.binary(max_size=64))
def test_derived_keys_are_those_of_the_librarys_hkdf(key: bytes, salt: bytes, label: bytes) -> None:
    assert derive_key(key, salt, label) == HKDF(SHA256(), 32, salt, label).derive(key)


def make() -> FrameCipher:
    return FrameCipher(b"k" * 32, b"s" * 32, b"label", b"context", "reply_invalid")


def test_equal_frames_differ_by_their_place_and_by_the_final_flag() -> None:
    cipher = make()
    first, second = cipher.seal(b"x", b"", False), cipher.seal(b"x", b"", False)
    assert len({first, second, make().seal(b"x", b"", True)}) == 3


def test_a_failed_stream_can_not_be_resumed() -> None:
    sealer, opener = make(), make()
    frame = sealer.seal(b"x", b"", False)
    with pytest.raises(LatticeError, match="reply_invalid"):
        opener.open(b"", b"", False)
    with pytest.raises(LatticeError, match="reply_invalid"):
        opener.open(frame, b"", False)
