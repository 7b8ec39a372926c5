"""A live work: frames in order, failures after what came before, and no second attempt once a frame is out."""

from __future__ import annotations

import asyncio

import pytest

from lattice.core.errors import LatticeError
from lattice.gateway.relay.work import MAX_ATTEMPTS, MAX_BUFFERED_BYTES
from tests.unit.gateway.relay.conftest import MakeWork, frame


async def test_frames_come_out_in_order(make_work: MakeWork) -> None:
    work = make_work()
    assert all(work.push(frame(work, n)) for n in range(3))
    assert [(await work.take()).sequence for _ in range(3)] == [0, 1, 2]


async def test_a_repeated_frame_is_taken_once(make_work: MakeWork) -> None:
    """A daemon that did not hear our answer posts again; its lease is not lost by that."""
    work = make_work()
    assert work.push(frame(work, 0))
    assert work.push(frame(work, 0, b"again"))
    assert work.push(frame(work, 1))
    assert [(await work.take()).frame for _ in range(2)] == [b"x", b"x"]


def test_a_frame_out_of_order_is_refused(make_work: MakeWork) -> None:
    work = make_work()
    assert not work.push(frame(work, 1))
    assert work.next_sequence == 0


async def test_take_waits_for_a_frame(make_work: MakeWork) -> None:
    work = make_work()
    taking = asyncio.create_task(work.take())
    await asyncio.sleep(0)
    assert not taking.done()
    work.push(frame(work, 0))
    assert (await taking).sequence == 0
    assert work.waited > 0


async def test_a_failure_comes_after_the_frames_before_it(make_work: MakeWork) -> None:
    work = make_work()
    work.push(frame(work, 0))
    work.fail(LatticeError("runtime_failed"))
    await work.take()
    with pytest.raises(LatticeError, match="runtime_failed"):
        await work.take()


async def test_the_first_failure_counts(make_work: MakeWork) -> None:
    work = make_work()
    work.fail(LatticeError("lease_lost"))
    work.fail(LatticeError("runtime_failed"))
    with pytest.raises(LatticeError, match="lease_lost"):
        await work.take()


async def test_a_frame_after_the_failure_is_refused(make_work: MakeWork) -> None:
    """Else a runtime that ignores a cancel would go on streaming into a work that is over, and be paid for it."""
    work = make_work()
    work.fail(LatticeError("work_cancelled"))
    assert not work.push(frame(work, 0))
    with pytest.raises(LatticeError, match="work_cancelled"):
        await work.take()


async def test_a_cancel_drops_what_nobody_will_read(make_work: MakeWork) -> None:
    work = make_work()
    work.push(frame(work, 0))
    work.cancel()
    assert work.over
    with pytest.raises(LatticeError, match="work_cancelled"):
        await work.take()


async def test_a_runtime_cannot_fill_the_gateway_s_memory(make_work: MakeWork) -> None:
    """A caller that does not read is not a reason to buffer without bound."""
    work = make_work()
    half = bytes(MAX_BUFFERED_BYTES // 2 + 1)
    assert work.push(frame(work, 0, half))
    assert not work.push(frame(work, 1, half))
    await work.take()
    await work.take()
    with pytest.raises(LatticeError, match="work_cancelled"):
        await work.take()


def test_one_large_frame_is_not_a_slow_caller(make_work: MakeWork) -> None:
    """Embeddings of many inputs come as a single frame that is larger than the limit for running ahead."""
    work = make_work()
    assert work.push(frame(work, 0, bytes(MAX_BUFFERED_BYTES + 1)))
    assert not work.over


async def test_no_retry_once_a_frame_was_handed_to_the_caller(make_work: MakeWork) -> None:
    work = make_work()
    work.begin_attempt(1)
    assert work.may_retry
    work.push(frame(work, 0))
    assert not work.may_retry
    await work.take()
    assert not work.may_retry


def test_retries_end(make_work: MakeWork) -> None:
    work = make_work()
    work.begin_attempt(MAX_ATTEMPTS)
    assert not work.may_retry


def test_a_new_attempt_starts_from_nothing(make_work: MakeWork) -> None:
    work = make_work()
    work.begin_attempt(1)
    work.dispatched = True
    work.push(frame(work, 0))
    work.begin_attempt(2)
    assert (work.attempt, work.next_sequence, work.dispatched) == (2, 0, False)
    assert work.push(frame(work, 0))
