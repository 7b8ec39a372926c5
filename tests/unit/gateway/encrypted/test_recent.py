"""What is kept in memory for a moment: bounded, the oldest first to go."""

from __future__ import annotations

from lattice.gateway.encrypted.recent import Recent


def test_what_is_taken_is_gone_and_its_room_is_free() -> None:
    recent = Recent(max_bytes=10)
    for name in (b"a", b"b"):
        recent.put(name, b"12345")
    assert recent.take(b"a") == b"12345"
    assert recent.take(b"a") is None
    recent.put(b"c", b"12345")
    assert (recent.take(b"b"), recent.take(b"c")) == (b"12345", b"12345")


def test_the_oldest_go_and_the_same_bytes_again_take_no_more_room() -> None:
    recent = Recent(max_bytes=10)
    recent.put(b"a", b"1234")
    recent.put(b"b", b"1234")
    recent.put(b"a", b"1234")  # the youngest again
    recent.put(b"c", b"12")
    assert recent.take(b"b") == b"1234"
    recent.put(b"d", b"12345")
    assert [recent.take(name) for name in (b"a", b"c", b"d")] == [None, b"12", b"12345"]
    recent.put(b"e", b"12345678901")
    assert recent.take(b"e") is None
