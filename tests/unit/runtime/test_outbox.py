"""The outbox: what goes when, in what order, and again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from lattice.core.errors import LatticeError
from lattice.core.relay import FailRequest, ResultFrame, WorkRef
from lattice.runtime import outbox as module
from lattice.runtime.outbox import Outbox
from lattice.runtime.transport import RelayDown


def frame(work: str, sequence: int, *, final: bool = False, size: int = 1) -> ResultFrame:
    return ResultFrame(work, 1, sequence, sequence, b"x" * size, final, b"r" if final else None)


class Harness:
    """Owner and gateway in one: notes the POSTs, and lets a test hold or break them."""

    def __init__(self) -> None:
        self.posts: list[list[tuple[str, int]]] = []
        self.at: list[float] = []
        self.fails: list[str] = []
        self.closed: set[str] = set()
        self.lost_refs: list[WorkRef] = []
        self.done: list[str] = []
        self.answer_lost: tuple[WorkRef, ...] = ()
        self.errors: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.outbox = Outbox(self, self.post, self.post_fail, lambda _tries: 0.001)

    async def post(self, frames: tuple[ResultFrame, ...]) -> tuple[WorkRef, ...]:
        self.posts.append([(f.work_id, f.sequence) for f in frames])
        self.at.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        await self.gate.wait()
        return self.answer_lost

    async def post_fail(self, failure: FailRequest) -> tuple[WorkRef, ...]:
        if self.errors:
            raise self.errors.pop(0)
        self.fails.append(failure.work_id)
        return ()

    def is_open(self, work_id: str, _attempt: int) -> bool:
        return work_id not in self.closed

    def lost(self, refs: Iterable[WorkRef]) -> None:
        self.lost_refs += refs

    def settled(self, work_id: str, _attempt: int) -> None:
        self.done.append(work_id)


@pytest.fixture
async def box() -> Harness:
    return Harness()


async def settle(seconds: float = 0.01) -> None:
    await asyncio.sleep(seconds)


async def test_a_first_frame_goes_at_once_with_whatever_waits(box: Harness) -> None:
    for work in ("a", "b", "c"):
        box.outbox.put(frame(work, 0))
    await settle()
    assert box.posts == [[("a", 0), ("b", 0), ("c", 0)]]


async def test_later_frames_are_gathered_for_at_most_25_ms(box: Harness) -> None:
    box.outbox.put(frame("a", 0))
    await settle()
    begun = asyncio.get_running_loop().time()
    for sequence in range(1, 5):
        box.outbox.put(frame("a", sequence))
        await settle(0.002)
    assert len(box.posts) == 1
    await settle(0.05)
    assert box.posts[1:] == [[("a", 1), ("a", 2), ("a", 3), ("a", 4)]]
    assert 0.02 <= box.at[1] - begun < 0.045


async def test_a_last_frame_takes_the_waiting_ones_along_at_once(box: Harness) -> None:
    box.outbox.put(frame("a", 0))
    await settle()
    box.outbox.put(frame("a", 1))
    box.outbox.put(frame("a", 2, final=True))
    await settle()
    assert box.posts[1:] == [[("a", 1), ("a", 2)]]
    assert box.done == ["a"]


async def test_two_posts_at_most_and_a_work_in_one_of_them(box: Harness) -> None:
    box.gate.clear()
    box.outbox.put(frame("a", 0))
    await settle()
    box.outbox.put(frame("a", 1, final=True))
    box.outbox.put(frame("b", 0))
    await settle()
    box.outbox.put(frame("c", 0))
    await settle()
    assert box.posts == [[("a", 0)], [("b", 0)]]
    box.gate.set()
    await settle()
    assert box.posts[2:] == [[("a", 1), ("c", 0)]]


async def test_a_broken_post_is_repeated_with_the_same_numbers(box: Harness) -> None:
    box.errors = [RelayDown("x"), RelayDown("x")]
    box.outbox.put(frame("a", 0, final=True))
    await settle(0.05)
    assert box.posts == [[("a", 0)]] * 3
    assert box.done == ["a"]


async def test_works_that_nobody_waits_for_are_dropped_from_a_repeat(box: Harness) -> None:
    box.errors = [RelayDown("x")]
    box.outbox.put(frame("a", 0))
    box.outbox.put(frame("b", 0))
    box.closed.add("a")
    await settle(0.05)
    assert box.posts == [[("a", 0), ("b", 0)], [("b", 0)]]


async def test_a_final_refusal_loses_the_works(box: Harness) -> None:
    box.errors = [LatticeError("lease_lost")]
    box.outbox.put(frame("a", 0, final=True))
    await settle()
    assert box.lost_refs == [WorkRef("a", 1)]
    assert box.done == []


async def test_lost_works_are_reported_and_not_settled(box: Harness) -> None:
    box.answer_lost = (WorkRef("a", 1),)
    box.outbox.put(frame("a", 0, final=True))
    box.outbox.put(frame("b", 0, final=True))
    await settle()
    assert box.lost_refs == [WorkRef("a", 1)]
    assert box.done == ["b"]


async def test_a_failure_goes_after_the_frames(box: Harness) -> None:
    box.gate.clear()
    box.outbox.put(frame("a", 0))
    await settle()
    box.outbox.put(frame("a", 1))
    box.outbox.fail(FailRequest("s", "a", 1, "runtime_failed"))
    await settle()
    assert box.fails == []
    box.gate.set()
    await settle(0.05)
    assert box.posts == [[("a", 0)], [("a", 1)]]
    assert box.fails == box.done == ["a"]


async def test_a_failure_is_repeated_until_it_is_taken_or_pointless(box: Harness) -> None:
    box.errors = [RelayDown("x")]
    box.outbox.fail(FailRequest("s", "a", 1, "runtime_failed"))
    await settle(0.05)
    assert box.fails == ["a"]
    box.closed.add("b")
    box.outbox.fail(FailRequest("s", "b", 1, "runtime_failed"))
    await settle()
    assert box.fails == ["a"]


async def test_discarding_forgets_what_waits(box: Harness) -> None:
    box.gate.clear()
    for work in ("a", "b", "c"):
        box.outbox.put(frame(work, 0))
        await settle()
    box.outbox.discard("c")
    box.gate.set()
    await settle()
    assert box.posts == [[("a", 0)], [("b", 0)]]


async def test_posts_are_bounded_in_bytes_and_frames(box: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_POST_BYTES", 10)
    monkeypatch.setattr(module, "MAX_FRAMES_PER_POST", 3)
    box.outbox.put(frame("big", 0, size=100))
    for sequence in range(4):
        box.outbox.put(frame("a", sequence))
    box.outbox.put(frame("b", 0, size=9))
    await settle(0.05)
    assert [("big", 0)] in box.posts
    assert all(len(post) <= 3 for post in box.posts)
    assert sorted(entry for post in box.posts for entry in post) == [
        *(("a", sequence) for sequence in range(4)),
        ("b", 0),
        ("big", 0),
    ]
    order = [sequence for post in box.posts for work, sequence in post if work == "a"]
    assert order == [0, 1, 2, 3]


async def test_a_fast_engine_waits_for_a_slow_uplink(box: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HIGH_WATER", 10)
    box.gate.clear()
    box.outbox.put(frame("a", 0, size=11))
    waiting = asyncio.create_task(box.outbox.room())
    await settle()
    assert not waiting.done()
    box.gate.set()
    await asyncio.wait_for(waiting, 1)


async def test_closing_stops_a_post_under_way(box: Harness) -> None:
    box.gate.clear()
    box.outbox.put(frame("a", 0))
    box.outbox.put(frame("a", 1))
    await settle()
    await box.outbox.close()
    box.gate.set()
    await settle(0.05)
    assert box.posts == [[("a", 0), ("a", 1)]]
