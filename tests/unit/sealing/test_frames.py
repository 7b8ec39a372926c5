"""Reply frames: order, end, counts and attempts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.cipher import REPLY_LABEL, FrameCipher
from lattice.sealing.frames import MAX_ATTEMPT, MAX_REPLY_PAYLOAD, ReplyOpener, ReplySealer
from lattice.sealing.trailer import Trailer, join_trailer

KEY, HASH = b"k" * 32, b"h" * 32


def pair(attempt: int = 1) -> tuple[ReplySealer, ReplyOpener]:
    return ReplySealer(KEY, HASH, attempt), ReplyOpener(KEY, HASH)


@given(st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 50)), max_size=12), st.integers(0, MAX_ATTEMPT))
@settings(max_examples=60, deadline=None)
def test_payloads_counts_and_attempt_come_through(pieces: list[tuple[bytes, int]], attempt: int) -> None:
    sealer, opener = pair(attempt)
    tokens = 0
    for payload, more in pieces:
        tokens += more
        assert opener.open(sealer.seal(payload, tokens), tokens, False).payload == payload
        assert (opener.tokens, opener.finished) == (tokens, False)
    last = opener.open(sealer.seal_final(b"end", Trailer(usage=Usage(1, tokens))), tokens, True)
    text = b"".join(payload for payload, _ in pieces) + b"end"
    assert last.trailer is not None
    assert last.trailer.transcript_hash == b64url(hashlib.sha256(text).digest())
    assert (opener.attempt, opener.finished, last.payload) == (attempt, True, b"end")
    assert opener.ciphertext_hash == sealer.ciphertext_hash == sealer.transcript


def test_the_frames_hash_is_that_of_the_frames_joined() -> None:
    sealer, _ = pair()
    frames = [sealer.seal(b"one", 1), sealer.seal_final(b"", Trailer(usage=Usage(0, 1)))]
    assert sealer.ciphertext_hash == hashlib.sha256(b"".join(frames)).digest()


def test_each_attempt_has_its_own_salt() -> None:
    one, two = ReplySealer(KEY, HASH, 1), ReplySealer(KEY, HASH, 1)
    assert one.seal(b"x", 0)[4:36] != two.seal(b"x", 0)[4:36]


def test_the_last_count_may_correct_an_estimate() -> None:
    sealer, opener = pair()
    opener.open(sealer.seal(b"x", 9), 9, False)
    last = opener.open(sealer.seal_final(b"", Trailer(usage=Usage(1, 7))), 7, True)
    assert last.trailer is not None
    assert last.trailer.usage == Usage(1, 7)


def test_an_opener_can_be_told_the_attempt() -> None:
    frame = ReplySealer(KEY, HASH, 2).seal(b"x", 0)
    assert ReplyOpener(KEY, HASH, 2).open(frame, 0, False).payload == b"x"
    with pytest.raises(LatticeError, match="another attempt"):
        ReplyOpener(KEY, HASH, 1).open(frame, 0, False)


def test_after_a_failure_nothing_more_opens() -> None:
    sealer, opener = pair()
    first, second = sealer.seal(b"one", 1), sealer.seal(b"two", 2)
    opener.open(first, 1, False)
    with pytest.raises(LatticeError, match="reply_invalid"):
        opener.open(second, 3, False)
    with pytest.raises(LatticeError, match="ended or failed"):
        opener.open(second, 2, False)
    with pytest.raises(LatticeError, match="cut off"):
        opener.require_finished()


def test_only_the_last_frame_finishes_a_reply() -> None:
    sealer, opener = pair()
    opener.open(sealer.seal(b"x", 1), 1, False)
    with pytest.raises(LatticeError, match="cut off"):
        opener.require_finished()
    opener.open(sealer.seal_final(b"", Trailer(usage=Usage(0, 1))), 1, True)
    opener.require_finished()


def test_a_sealer_refuses_what_an_opener_would() -> None:
    sealer, _ = pair()
    sealer.seal(b"x", 5)
    for payload, tokens in ((b"", 4), (b"", 2**53), (bytes(MAX_REPLY_PAYLOAD + 1), 5)):
        with pytest.raises(ValueError, match="token count"):
            sealer.seal(payload, tokens)
    with pytest.raises(ValueError, match="usage"):
        sealer.seal_final(b"", Trailer(usage=Usage(-1, 0)))
    for attempt in (-1, MAX_ATTEMPT + 1):
        with pytest.raises(ValueError, match="32-bit"):
            ReplySealer(KEY, HASH, attempt)
    with pytest.raises(ValueError, match="salt"):
        ReplySealer(KEY, HASH, 1, b"short")


def test_a_sealer_survives_a_refused_trailer() -> None:
    sealer, opener = pair()
    with pytest.raises(LatticeError, match="reply_invalid"):
        sealer.seal_final(b"text", Trailer(finish_reason="x" * 65))
    assert opener.open(sealer.seal_final(b"text", Trailer()), 0, True).payload == b"text"


def test_nothing_is_sealed_after_the_end() -> None:
    sealer, _ = pair()
    sealer.seal_final(b"", Trailer())
    with pytest.raises(ValueError, match="ended"):
        sealer.seal(b"", 0)
    with pytest.raises(ValueError, match="ended"):
        sealer.seal_final(b"", Trailer())


def dishonest(rows: list[tuple[bytes, int, bool]]) -> ReplyOpener:
    """Open frames of a runtime that holds the right keys and breaks the rules."""
    cipher = FrameCipher(KEY, bytes(32), REPLY_LABEL, HASH, "reply_invalid")
    opener, prefix = ReplyOpener(KEY, HASH), bytes(36)
    for plaintext, tokens, final in rows:
        frame = prefix + cipher.seal(plaintext, bytes(4) + tokens.to_bytes(8, "big"), final)
        opener.open(frame, tokens, final)
        prefix = b""
    return opener


def test_a_runtime_that_breaks_the_rules_is_caught() -> None:
    empty = b64url(hashlib.sha256(b"").digest())
    good = join_trailer(Trailer(usage=Usage(1, 2), transcript_hash=empty), b"")
    assert dishonest([(good, 2, True)]).finished
    wrong_hash = join_trailer(Trailer(usage=Usage(1, 2), transcript_hash=empty), b"text")
    for rows in (
        [(b"x", 2, False), (b"x", 1, False)],
        [(good, 3, True)],
        [(wrong_hash, 2, True)],
        [(b"no trailer", 2, True)],
        [(b"", 2, True)],
        [(good, 2, True), (b"more", 2, False)],
        [(good, 2, True), (good, 2, True)],
    ):
        with pytest.raises(LatticeError, match="reply_invalid"):
            dishonest(rows)
