"""Splitting server-sent events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.runtime.engines.sse import EventSplitter, event_data

EVENTS = [b'data: {"a": 1}\n\n', b": ping\n\n", b'event: x\ndata: {"b":\ndata: 2}\n\n', b"data: [DONE]\n\n"]


@given(st.lists(st.integers(1, 40), max_size=30), st.booleans())
def test_any_cut_gives_the_same_events(cuts: list[int], crlf: bool) -> None:
    stream = b"".join(EVENTS)
    if crlf:
        stream = stream.replace(b"\n", b"\r\n")
    splitter = EventSplitter()
    got: list[bytes] = []
    for cut in cuts:
        got += splitter.feed(stream[:cut]) if stream[:cut] else []
        stream = stream[cut:]
    got += splitter.feed(stream)
    assert got == EVENTS
    assert splitter.flush() == []


def test_data_of_an_event() -> None:
    assert [event_data(event) for event in EVENTS] == [b'{"a": 1}', None, b'{"b":\n2}', b"[DONE]"]
    assert event_data(b"data:x\n\n") == b"x"


def test_a_last_event_without_its_blank_line_is_kept() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: x\n") == []
    assert splitter.flush() == [b"data: x\n\n"]


def test_an_endless_event_is_refused() -> None:
    splitter = EventSplitter(max_event=10)
    with pytest.raises(LatticeError, match="without an end"):
        splitter.feed(b"data: 0123456789")
