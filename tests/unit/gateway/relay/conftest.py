"""A link and works without a network."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lattice.core.relay import PROTOCOL_VERSION, Announcement, ModelOffer, PollRequest, ResultFrame
from lattice.gateway.relay.link import Link
from lattice.gateway.relay.work import LiveWork
from lattice.sealing.identity import IdentityKey

NOW = 1_000_000

MakeWork = Callable[..., LiveWork]


@pytest.fixture
def link() -> Link:
    """A link with two slots and room for two more works, whose daemon has polled once."""
    made = Link("lat_a", "acc_a", "personal", IdentityKey.generate().public, max_queue=2)
    made.announce(Announcement((), (ModelOffer("m"),), concurrency=2), None, b"")
    made.open_poll(poll("s1"), NOW)
    return made


@pytest.fixture
def make_work() -> MakeWork:
    """Works, numbered."""
    count = 0

    def make(envelope: bytes = b"envelope") -> LiveWork:
        nonlocal count
        count += 1
        return LiveWork(f"work_{count}", "lat_a", "acc_a", envelope, deadline_ms=NOW + 600_000)

    return make


def poll(session: str, ack: int = 0, instance: str = "i1", draining: bool = False) -> PollRequest:
    """A poll."""
    return PollRequest(PROTOCOL_VERSION, session, instance, ack, draining=draining)


def frame(work: LiveWork, sequence: int, data: bytes = b"x", attempt: int | None = None) -> ResultFrame:
    """A frame of a work's current attempt."""
    return ResultFrame(work.work_id, work.attempt if attempt is None else attempt, sequence, sequence + 1, data)


def hand_over(link: Link, *works: LiveWork) -> None:
    """Admit and dispatch, as the hub does around a durable admission."""
    for work in works:
        link.admit(work, NOW)
        if work.state == "leased":
            work.begin_attempt(1)
            link.dispatch(work)
