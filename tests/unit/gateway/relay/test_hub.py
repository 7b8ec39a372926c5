"""The hub: leases, retries and time, over a store whose every commit the test releases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.core.relay import LEASE_MS, REACHABLE_MS, FramesRequest, WorkRef
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.hub import Hub
from lattice.gateway.relay.leases import lease_all
from lattice.gateway.relay.link import Link
from lattice.gateway.relay.work import LiveWork
from lattice.gateway.store.database import Store
from tests.unit.gateway.relay.conftest import NOW, MakeWork, frame, poll


class PausedStore:
    """Commits nothing until `commit`; leases always succeed, under the next attempt."""

    def __init__(self) -> None:
        self.error: LatticeError | None = None
        self.waiting: list[tuple[asyncio.Future[Any], Any]] = []
        self.paused = False

    async def write(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Answer as the database would."""
        result = [ref.attempt + 1 for ref in args[0]] if fn is lease_all else None
        if self.error is not None:
            raise self.error
        if not self.paused:
            return result
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting.append((future, result))
        return await future

    async def commit(self) -> None:
        """Let everything that waits be durable."""
        while not self.waiting:
            await asyncio.sleep(0)
        for future, result in self.waiting:
            future.set_result(result)
        self.waiting.clear()
        await asyncio.sleep(0)


class Stage:
    """A hub with one link."""

    def __init__(self, link: Link) -> None:
        self.clock = ManualClock(NOW)
        self.store = PausedStore()
        self.metrics = Metrics()
        self.hub = Hub(cast(Store, self.store), self.clock, self.metrics, "gw_a")
        self.link = link
        self.hub.links[link.runtime_id] = link

    def admit(self, work: LiveWork) -> LiveWork:
        """Reserve and dispatch, as the work service does around the durable admission."""
        self.hub.reserve(self.link, work)
        if work.state == "leased":
            work.begin_attempt(1)
            self.hub.dispatch(self.link, work)
        return work

    def deliver(self) -> list[WorkRef]:
        """The daemon's next batch, acknowledged."""
        reply = self.link.reply(self.clock.now_ms(), None, False)
        self.link.open_poll(poll("s1", ack=reply.seq), self.clock.now_ms())
        return [WorkRef(work.work_id, work.attempt) for work in reply.works]

    def post(self, work: LiveWork, sequence: int, attempt: int, session: str = "s1") -> bool:
        """Post one frame; whether it was accepted."""
        request = FramesRequest(session, (frame(work, sequence, attempt=attempt),))
        return not self.hub.accept(self.link, request).lost

    @property
    def dispatched(self) -> float:
        """`lattice_works_dispatched_total`."""
        return self.metrics.registry.get_sample_value("lattice_works_dispatched_total") or 0


@pytest.fixture
def stage(link: Link) -> Stage:
    return Stage(link)


async def failure(work: LiveWork) -> str:
    with pytest.raises(LatticeError) as failed:
        await asyncio.wait_for(work.take(), 1)
    return failed.value.code


def test_frames_of_the_current_attempt_are_accepted_and_extend_the_lease(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    stage.deliver()
    stage.clock.advance(1_000)
    assert stage.post(work, 0, attempt=1)
    assert work.lease_expires_ms == NOW + 1_000 + LEASE_MS


def test_frames_of_an_unknown_session_are_refused(stage: Stage, make_work: MakeWork) -> None:
    """A process that lost its session to a restarted daemon cannot answer any more."""
    work = stage.admit(make_work())
    stage.deliver()
    assert not stage.post(work, 0, attempt=1, session="another")
    assert not stage.post(work, 0, attempt=2)


async def test_an_expired_lease_becomes_another_attempt_and_late_frames_are_lost(
    stage: Stage, make_work: MakeWork
) -> None:
    work = stage.admit(make_work())
    assert stage.deliver() == [WorkRef(work.work_id, 1)]
    stage.clock.advance(LEASE_MS)
    stage.link.open_poll(poll("s1", ack=1), stage.clock.now_ms())
    await stage.hub.sweep()
    assert not stage.post(work, 0, attempt=1)
    assert stage.deliver() == [WorkRef(work.work_id, 2)]
    assert stage.post(work, 0, attempt=2)
    assert stage.dispatched == 2


async def test_a_frame_that_comes_while_the_next_attempt_is_being_leased_is_lost(
    stage: Stage, make_work: MakeWork
) -> None:
    """Else the caller would get a frame of the old attempt and then another attempt's frames on top."""
    work = stage.admit(make_work())
    stage.deliver()
    stage.clock.advance(LEASE_MS)
    stage.link.open_poll(poll("s1", ack=1), stage.clock.now_ms())
    stage.store.paused = True
    sweeping = asyncio.create_task(stage.hub.sweep())
    while not stage.store.waiting:
        await asyncio.sleep(0)
    assert not stage.post(work, 0, attempt=1)
    await stage.store.commit()
    await sweeping
    assert stage.deliver() == [WorkRef(work.work_id, 2)]
    assert not work.taken


async def test_two_sweeps_at_once_start_one_attempt(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    stage.deliver()
    stage.clock.advance(LEASE_MS)
    stage.link.open_poll(poll("s1", ack=1), stage.clock.now_ms())
    stage.store.paused = True
    sweeping = [asyncio.create_task(stage.hub.sweep()) for _ in range(2)]
    await stage.store.commit()
    await asyncio.gather(*sweeping)
    assert stage.deliver() == [WorkRef(work.work_id, 2)]
    assert not work.over


async def test_no_second_attempt_after_a_frame(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    stage.deliver()
    stage.post(work, 0, attempt=1)
    await work.take()
    stage.clock.advance(LEASE_MS)
    stage.link.open_poll(poll("s1", ack=1), stage.clock.now_ms())
    await stage.hub.sweep()
    assert await failure(work) == "runtime_failed"
    assert stage.deliver() == []


async def test_a_restarted_daemon_gets_the_work_that_its_old_process_lost(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    stage.deliver()
    lost = stage.link.open_poll(poll("s2", instance="i2"), NOW)
    await stage.hub.give_back(stage.link, lost, LatticeError("runtime_failed"))
    assert [(w.work_id, w.attempt) for w in stage.link.reply(NOW, None, False).works] == [(work.work_id, 2)]


async def test_restarts_before_delivery_do_not_hand_a_work_over_twice(stage: Stage, make_work: MakeWork) -> None:
    """A daemon that crashes in a loop: work that it never got again is not counted as lost again."""
    work = stage.admit(make_work())
    stage.deliver()
    for number in range(2, 6):
        lost = stage.link.open_poll(poll(f"s{number}", instance=f"i{number}"), NOW)
        await stage.hub.give_back(stage.link, lost, LatticeError("runtime_failed"))
    assert [(w.work_id, w.attempt) for w in stage.link.reply(NOW, None, False).works] == [(work.work_id, 2)]
    assert not work.over


async def test_a_caller_that_leaves_while_its_work_is_promoted(stage: Stage, make_work: MakeWork) -> None:
    """The lease is durable by then, so the work has its new attempt and whoever ends it voids that one; no machine
    computes it."""
    first, second, third = (stage.admit(make_work()) for _ in range(3))
    stage.deliver()
    stage.store.paused = True
    stage.hub.end(first)
    while not stage.store.waiting:
        await asyncio.sleep(0)
    stage.hub.cancel(third)
    await stage.store.commit()
    assert third.attempt == 1
    assert third.over
    assert stage.deliver() == []
    assert stage.dispatched == 2
    assert not second.over


async def test_a_store_that_fails_fails_the_promotion(stage: Stage, make_work: MakeWork) -> None:
    first, _, third = (stage.admit(make_work()) for _ in range(3))
    stage.store.error = LatticeError("store_unavailable")
    stage.hub.end(first)
    assert await failure(third) == "store_unavailable"


async def test_a_daemon_that_stopped_polling_fails_what_it_had(stage: Stage, make_work: MakeWork) -> None:
    """What it got has failed; what it never got was refused, and the code says so."""
    stage.link.concurrency = 1
    got = stage.admit(make_work())
    stage.deliver()
    queued = stage.admit(make_work())
    stage.clock.advance(REACHABLE_MS)
    await stage.hub.sweep()
    assert await failure(got) == "runtime_failed"
    assert await failure(queued) == "runtime_unreachable"


async def test_a_work_past_its_deadline_is_cancelled_once(stage: Stage, make_work: MakeWork) -> None:
    work = make_work()
    work.deadline_ms = NOW + 1_000
    stage.admit(work)
    stage.deliver()
    stage.clock.advance(1_000)
    await stage.hub.sweep()
    await stage.hub.sweep()
    assert await failure(work) == "personal_lattice_execution_timeout"
    assert stage.link.reply(NOW, None, False).cancels == (work.ref,)


async def test_revoking_a_runtime_fails_its_work(stage: Stage, make_work: MakeWork) -> None:
    works = [stage.admit(make_work()) for _ in range(3)]
    stage.hub.drop("lat_a")
    assert [await failure(work) for work in works] == ["runtime_unreachable"] * 3
    assert "lat_a" not in stage.hub.links
    assert not stage.link.reachable(NOW)
    stage.hub.drop("lat_a")


async def test_renewing_keeps_what_is_held_and_names_what_is_lost(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    stage.deliver()
    stage.clock.advance(30_000)
    ack = await stage.hub.renew(stage.link, [WorkRef(work.work_id, 1), WorkRef("work_other", 1)])
    assert ack.lost == (WorkRef("work_other", 1),)
    assert work.lease_expires_ms == NOW + 30_000 + LEASE_MS


async def test_cancelling_tells_a_daemon_only_of_work_that_it_got(stage: Stage, make_work: MakeWork) -> None:
    got = stage.admit(make_work())
    stage.deliver()
    waiting = stage.admit(make_work())
    stage.hub.cancel(waiting)
    stage.hub.cancel(got)
    reply = stage.link.reply(NOW, None, False)
    assert (reply.works, reply.cancels) == ((), (got.ref,))


async def test_a_draining_gateway_refuses_work_and_waits_for_what_runs(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    draining = asyncio.create_task(stage.hub.drain(10))
    await asyncio.sleep(0)
    with pytest.raises(LatticeError) as refused:
        stage.hub.reserve(stage.link, make_work())
    assert refused.value.code == "draining"
    assert not draining.done()
    stage.hub.end(work)
    await asyncio.wait_for(draining, 1)
    assert not work.over or work.state == "ended"


async def test_a_drain_ends_what_does_not_end(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    await stage.hub.drain(0)
    assert await failure(work) == "draining"


def test_ending_a_work_twice_is_harmless(stage: Stage, make_work: MakeWork) -> None:
    work = stage.admit(make_work())
    stage.hub.end(work)
    stage.hub.end(work)
    assert stage.metrics.registry.get_sample_value("lattice_works_in_flight") == 0


def test_the_queue_is_full(stage: Stage, make_work: MakeWork) -> None:
    """A refused work leaves nothing behind."""
    for _ in range(4):
        stage.admit(make_work())
    refused = make_work()
    with pytest.raises(LatticeError, match="queue_full"):
        stage.hub.reserve(stage.link, refused)
    assert refused.work_id not in stage.hub.works
