"""The relay connection against an in-test gateway over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lattice.core.clock import HOUR_MS
from lattice.core.errors import LatticeError
from lattice.core.relay import ModelOffer, WorkRef
from lattice.runtime import transport as transport_module
from lattice.runtime.relay import RelayConnection
from lattice.runtime.transport import RelayTransport, frames_url, relay_base
from tests.unit.runtime.machines import OFFER, STREAM, FakeEngine, ListEvents, Machine
from tests.unit.runtime.servers import RelayGateway


class GatedEvents(ListEvents):
    """A stream that waits for the test after its first piece."""

    def __init__(self, batches: list[list[bytes]], gate: asyncio.Event) -> None:
        super().__init__(batches)
        self._gate = gate
        self._first = True

    async def __anext__(self) -> list[bytes]:
        if not self._first:
            await self._gate.wait()
        self._first = False
        return await super().__anext__()


class GatedEngine(FakeEngine):
    """Holds every answer until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.active = 0
        self.most_active = 0

    async def chat(self, body: dict[str, Any], *, stream: bool) -> Any:
        reply = await super().chat(body, stream=stream)
        if stream:
            self.streams[-1] = GatedEvents(STREAM, self.gate)
            return type(reply)(200, events=self.streams[-1])
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            await self.gate.wait()
        finally:
            self.active -= 1
        return reply


class World:
    """A gateway, a machine and the connection between them."""

    def __init__(self, gateway: RelayGateway, machine: Machine, connection: RelayConnection) -> None:
        self.gateway = gateway
        self.machine = machine
        self.connection = connection
        self.task = asyncio.create_task(connection.run())


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "BACKOFF_CAP_S", 0.05)


@contextlib.asynccontextmanager
async def connected(
    tmp_path: Path, engine: FakeEngine, *, url: str | None = None, gateway: RelayGateway | None = None, **options: Any
) -> AsyncIterator[World]:
    gateway = gateway or RelayGateway()
    machine = Machine(tmp_path, engine)
    async with contextlib.AsyncExitStack() as stack:
        address = url or await stack.enter_async_context(gateway.run())
        connection = RelayConnection(
            transport=RelayTransport(address, "rlc_test"),
            runner=machine.runner,
            keys=machine.keys,
            board=machine.board,
            clock=machine.clock,
            **options,
        )
        world = World(gateway, machine, connection)
        try:
            yield world
        finally:
            world.task.cancel()
            await asyncio.gather(world.task, return_exceptions=True)


async def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- polling --


async def test_work_is_answered_and_the_reply_acknowledged(tmp_path: Path) -> None:
    async with connected(tmp_path, FakeEngine()) as world:
        sealed = world.machine.seal()
        world.gateway.hand_over(world.machine.lease(sealed))
        work_id = sealed.envelope.parsed.work_id
        await world.gateway.until(lambda: world.gateway.finished(work_id))
        answer = world.machine.open(sealed, world.gateway.frames_of(work_id))
        assert b"hello" in answer.payload
        await world.gateway.until(lambda: len(world.gateway.polls) == 2)
        first, second = world.gateway.polls
        assert (first.ack, second.ack) == (0, 1)
        assert first.session == second.session
        assert first.announce is not None
        assert second.announce is None
        assert first.announce.models == (OFFER,)
        assert first.announce.key_configs == world.machine.keys.announcement
        await until(lambda: world.connection.status.work.completed == 1)
        assert world.connection.status.state == "connected"


async def test_a_poll_is_open_while_work_runs(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, concurrency=4) as world:
        first, second = world.machine.seal(), world.machine.seal()
        world.gateway.hand_over(world.machine.lease(first))
        await until(lambda: engine.active == 1)
        world.gateway.hand_over(world.machine.lease(second))
        await until(lambda: engine.active == 2)
        engine.gate.set()
        for sealed in (first, second):
            work_id = sealed.envelope.parsed.work_id
            await world.gateway.until(lambda work_id=work_id: world.gateway.finished(work_id))


async def test_news_about_the_machine_is_announced_at_once_in_a_new_session(tmp_path: Path) -> None:
    async with connected(tmp_path, FakeEngine()) as world:
        await world.gateway.until(lambda: len(world.gateway.announcements) == 1)
        world.machine.board.offers = (ModelOffer("new"),)
        world.machine.board.version += 1
        world.connection.announce()
        await world.gateway.until(lambda: len(world.gateway.announcements) == 2)
        assert world.gateway.announcements[1].models == (ModelOffer("new"),)
        assert world.gateway.polls[0].session != world.gateway.polls[1].session
        assert world.gateway.polls[0].instance == world.gateway.polls[1].instance


async def test_after_a_long_sleep_new_keys_are_announced(tmp_path: Path) -> None:
    async with connected(tmp_path, FakeEngine(), lease_ms=60) as world:
        await world.gateway.until(lambda: len(world.gateway.announcements) == 1)
        world.machine.clock.advance(25 * HOUR_MS)
        await world.gateway.until(lambda: len(world.gateway.announcements) == 2)
        assert not set(world.gateway.announcements[0].key_configs) & set(world.gateway.announcements[1].key_configs)
        sealed = world.machine.seal()
        world.gateway.hand_over(world.machine.lease(sealed))
        await world.gateway.until(lambda: world.gateway.finished(sealed.envelope.parsed.work_id))


async def test_a_restarted_gateway_is_found_again_and_work_goes_on(tmp_path: Path) -> None:
    port = free_port()
    engine = GatedEngine()
    gateway = RelayGateway()
    async with contextlib.AsyncExitStack() as outer:
        first_run = gateway.run(port)
        url = await first_run.__aenter__()
        world = await outer.enter_async_context(connected(tmp_path, engine, url=url, gateway=gateway))
        sealed = world.machine.seal()
        gateway.hand_over(world.machine.lease(sealed))
        await until(lambda: engine.active == 1)
        await first_run.__aexit__(None, None, None)
        await until(lambda: world.connection.status.state == "waiting")
        engine.gate.set()
        await asyncio.sleep(0.05)
        async with gateway.run(port):
            await gateway.until(lambda: gateway.finished(sealed.envelope.parsed.work_id))
            await gateway.until(lambda: len({poll.session for poll in gateway.polls}) >= 2)
            assert len({poll.instance for poll in gateway.polls}) == 1
            world.task.cancel()
            await asyncio.gather(world.task, return_exceptions=True)


async def test_a_gateway_that_drains_is_polled_again(tmp_path: Path) -> None:
    async with connected(tmp_path, FakeEngine()) as world:
        world.gateway.hand_over(drain=True)
        await world.gateway.until(lambda: len(world.gateway.polls) == 2)
        assert world.gateway.polls[0].session != world.gateway.polls[1].session


async def test_a_gateway_that_answers_emptily_is_not_spun_at(tmp_path: Path) -> None:
    gateway = RelayGateway()
    gateway.hold_s = 0.001
    async with connected(tmp_path, FakeEngine(), gateway=gateway):
        await asyncio.sleep(0.5)
    assert len(gateway.polls) < 15


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "revoked_grant"), (401, "invalid_credential"), (426, "protocol_unsupported"), (409, "session_superseded")],
)
async def test_a_final_refusal_ends_the_connection_with_its_words(tmp_path: Path, status: int, code: str) -> None:
    gateway = RelayGateway()
    gateway.refusal = (status, LatticeError(code).body())
    async with connected(tmp_path, FakeEngine(), gateway=gateway) as world:
        with pytest.raises(LatticeError) as caught:
            await asyncio.wait_for(world.task, 2)
        assert caught.value.code == code
        assert world.connection.status.state == "stopped"
        assert code in str(world.connection.status.problem)
    assert len(gateway.polls) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, LatticeError("store_unavailable").body()), (409, LatticeError("lease_lost").body()), (404, {}), (500, {})],
)
async def test_a_passing_refusal_is_tried_again(tmp_path: Path, status: int, body: dict[str, Any]) -> None:
    gateway = RelayGateway()
    gateway.refusal = (status, body)
    async with connected(tmp_path, FakeEngine(), gateway=gateway) as world:
        await gateway.until(lambda: len(gateway.polls) >= 3)
        assert world.connection.status.state in ("waiting", "connecting")
        gateway.refusal = None
        await gateway.until(lambda: gateway.announcements)


async def test_another_daemon_taking_over_ends_this_one(tmp_path: Path) -> None:
    async with connected(tmp_path, FakeEngine()) as world:
        world.gateway.hand_over(ended=True)
        with pytest.raises(LatticeError) as caught:
            await asyncio.wait_for(world.task, 2)
        assert caught.value.code == "session_superseded"


async def test_a_revoked_machine_whose_session_was_ended_hears_why(tmp_path: Path) -> None:
    async with connected(tmp_path, FakeEngine()) as world:
        world.gateway.renewal_refusal = LatticeError("revoked_grant")
        world.gateway.hand_over(ended=True)
        with pytest.raises(LatticeError) as caught:
            await asyncio.wait_for(world.task, 2)
        assert caught.value.code == "revoked_grant"


async def test_a_gateway_that_forgot_the_session_is_polled_again(tmp_path: Path) -> None:
    async with connected(tmp_path, FakeEngine()) as world:
        world.gateway.renewal_refusal = LatticeError("lease_lost")
        world.gateway.hand_over(ended=True)
        await world.gateway.until(lambda: len(world.gateway.announcements) == 2)


async def test_a_gateway_that_voided_the_work_stops_it(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, lease_ms=60) as world:
        world.gateway.renewal_refusal = LatticeError("lease_lost")
        world.gateway.hand_over(world.machine.lease(world.machine.seal()))
        await until(lambda: engine.most_active == 1)
        await until(lambda: engine.active == 0)


# -- works --


async def test_frames_repeat_with_the_same_numbers_after_a_broken_connection(tmp_path: Path) -> None:
    gateway = RelayGateway()
    gateway.break_frames, gateway.break_after_taking = 1, 1
    async with connected(tmp_path, FakeEngine(), gateway=gateway) as world:
        sealed = world.machine.seal(stream=True)
        gateway.hand_over(world.machine.lease(sealed))
        work_id = sealed.envelope.parsed.work_id
        await gateway.until(lambda: gateway.finished(work_id))
        await until(lambda: world.connection.status.work.completed == 1)
        assert b"he" in world.machine.open(sealed, gateway.frames_of(work_id)).payload


async def test_the_first_frame_does_not_wait_for_the_rest(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine) as world:
        sealed = world.machine.seal(stream=True)
        world.gateway.hand_over(world.machine.lease(sealed))
        work_id = sealed.envelope.parsed.work_id
        await world.gateway.until(lambda: len(world.gateway.frames_of(work_id)) == 1)
        assert not world.gateway.finished(work_id)
        engine.gate.set()
        await world.gateway.until(lambda: world.gateway.finished(work_id))
        world.machine.open(sealed, world.gateway.frames_of(work_id))


async def test_many_works_share_posts_and_at_most_two_are_under_way(tmp_path: Path) -> None:
    gateway = RelayGateway()
    gateway.frames_delay_s = 0.01
    async with connected(tmp_path, FakeEngine(), gateway=gateway, concurrency=64) as world:
        works = [world.machine.seal(stream=True) for _ in range(64)]
        gateway.hand_over(*(world.machine.lease(sealed) for sealed in works))
        ids = [sealed.envelope.parsed.work_id for sealed in works]
        await gateway.until(lambda: all(gateway.finished(work_id) for work_id in ids))
        for sealed, work_id in zip(works, ids, strict=True):
            world.machine.open(sealed, gateway.frames_of(work_id))
        assert len(gateway.posts) <= 20
        assert gateway.most_concurrent_posts <= 2


async def test_frames_go_where_the_reply_says(tmp_path: Path) -> None:
    other = RelayGateway()
    async with other.run() as url, connected(tmp_path, FakeEngine()) as world:
        world.gateway.results_url = url
        sealed = world.machine.seal()
        world.gateway.hand_over(world.machine.lease(sealed))
        await other.until(lambda: other.finished(sealed.envelope.parsed.work_id))
        assert world.gateway.posts == []


async def test_a_cancel_stops_the_engine_at_once_and_sends_nothing_more(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine) as world:
        sealed = world.machine.seal(stream=True)
        work_id = sealed.envelope.parsed.work_id
        world.gateway.hand_over(world.machine.lease(sealed))
        await world.gateway.until(lambda: len(world.gateway.frames_of(work_id)) == 1)
        world.gateway.hand_over(cancels=(WorkRef(work_id, 1),))
        await until(lambda: engine.streams[0].closed, 0.25)
        engine.gate.set()
        await asyncio.sleep(0.05)
        assert len(world.gateway.frames_of(work_id)) == 1
        assert world.gateway.fails == []
        assert world.connection.status.work.cancelled == 1


async def test_a_cancel_of_another_attempt_changes_nothing(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine) as world:
        sealed = world.machine.seal()
        work_id = sealed.envelope.parsed.work_id
        world.gateway.hand_over(world.machine.lease(sealed, 2), cancels=(WorkRef(work_id, 1),))
        await until(lambda: engine.active == 1)
        world.gateway.hand_over(cancels=(WorkRef(work_id, 1), WorkRef("work_x", 1)))
        await asyncio.sleep(0.05)
        engine.gate.set()
        await world.gateway.until(lambda: world.gateway.finished(work_id, 2))


async def test_a_queued_work_can_be_cancelled(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, concurrency=1) as world:
        first, second = world.machine.seal(), world.machine.seal()
        world.gateway.hand_over(world.machine.lease(first), world.machine.lease(second))
        await until(lambda: world.connection.status.work.queued == 1)
        world.gateway.hand_over(cancels=(WorkRef(second.envelope.parsed.work_id, 1),))
        await until(lambda: world.connection.status.work.cancelled == 1)
        engine.gate.set()
        await world.gateway.until(lambda: world.gateway.finished(first.envelope.parsed.work_id))
        await asyncio.sleep(0.02)
        assert len(engine.bodies) == 1


async def test_leases_are_kept_and_a_lost_one_stops_the_work(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, lease_ms=90) as world:
        sealed = world.machine.seal()
        ref = WorkRef(sealed.envelope.parsed.work_id, 1)
        world.gateway.hand_over(world.machine.lease(sealed))
        await world.gateway.until(lambda: len(world.gateway.renewals) >= 2)
        assert world.gateway.renewals[0].works == (ref,)
        world.gateway.lost.add(ref)
        await until(lambda: engine.active == 0)
        engine.gate.set()
        await asyncio.sleep(0.05)
        assert world.gateway.posts == []
        assert world.gateway.fails == []


async def test_a_lost_lease_in_a_frames_answer_stops_the_work(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine) as world:
        sealed = world.machine.seal(stream=True)
        work_id = sealed.envelope.parsed.work_id
        world.gateway.lost.add(WorkRef(work_id, 1))
        world.gateway.hand_over(world.machine.lease(sealed))
        await until(lambda: engine.streams and engine.streams[0].closed)
        assert len(world.gateway.frames_of(work_id)) == 1


async def test_a_new_attempt_replaces_the_old_one_and_a_repeat_changes_nothing(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, concurrency=4) as world:
        sealed = world.machine.seal()
        work_id = sealed.envelope.parsed.work_id
        world.gateway.hand_over(world.machine.lease(sealed, 1))
        await until(lambda: engine.active == 1)
        world.gateway.hand_over(world.machine.lease(sealed, 1))
        world.gateway.hand_over(world.machine.lease(sealed, 2))
        await until(lambda: len(engine.bodies) == 2)
        assert engine.active == 1
        engine.gate.set()
        await world.gateway.until(lambda: world.gateway.finished(work_id, 2))
        assert world.gateway.frames_of(work_id, 1) == []
        assert world.gateway.fails == []


async def test_slots_and_queue_are_bounded(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, concurrency=2, queue=3) as world:
        works = [world.machine.seal() for _ in range(7)]
        world.gateway.hand_over(*(world.machine.lease(sealed) for sealed in works))
        await world.gateway.until(lambda: len(world.gateway.fails) == 2)
        assert {(f.code, f.requeue) for f in world.gateway.fails} == {("queue_full", False)}
        engine.gate.set()
        ids = [sealed.envelope.parsed.work_id for sealed in works[:5]]
        await world.gateway.until(lambda: all(world.gateway.finished(work_id) for work_id in ids))
        assert engine.most_active == 2


async def test_a_refusal_reaches_the_gateway_with_its_code(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with connected(tmp_path, engine) as world:
        world.gateway.hand_over(world.machine.lease(world.machine.seal(model="other")))
        await world.gateway.until(lambda: world.gateway.fails)
        assert world.gateway.fails[0].code == "model_not_found"


async def test_a_mistake_of_ours_is_runtime_failed_without_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine()
    engine.error = ValueError("a canary prompt")
    async with connected(tmp_path, engine) as world:
        world.gateway.hand_over(world.machine.lease(world.machine.seal()))
        await world.gateway.until(lambda: world.gateway.fails)
        assert world.gateway.fails[0].code == "runtime_failed"
        assert "canary" not in world.gateway.fails[0].message
    captured = capsys.readouterr()
    assert "canary" not in captured.out + captured.err


async def test_work_past_its_deadline_is_given_up(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, lease_ms=60) as world:
        leased = world.machine.lease(world.machine.seal(), deadline_ms=world.machine.clock.now_ms() + 1000)
        world.gateway.hand_over(leased)
        await until(lambda: engine.active == 1)
        world.machine.clock.advance(1000)
        await until(lambda: engine.active == 0)


# -- draining --


async def test_a_drain_finishes_what_runs_and_gives_back_what_waits(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine, concurrency=1) as world:
        running, waiting, late = (world.machine.seal() for _ in range(3))
        world.gateway.hand_over(world.machine.lease(running), world.machine.lease(waiting))
        await until(lambda: engine.active == 1)
        draining = asyncio.create_task(world.connection.drain(5.0))
        await world.gateway.until(lambda: any(poll.draining for poll in world.gateway.polls))
        world.gateway.hand_over(world.machine.lease(late))
        await world.gateway.until(lambda: len(world.gateway.fails) == 2)
        assert all(failure.requeue for failure in world.gateway.fails)
        assert not draining.done()
        engine.gate.set()
        await asyncio.wait_for(draining, 2)
        assert world.gateway.finished(running.envelope.parsed.work_id)
        assert len(engine.bodies) == 1


async def test_a_drain_is_bounded_and_gives_back_the_rest(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine) as world:
        world.gateway.hand_over(world.machine.lease(world.machine.seal()))
        await until(lambda: engine.active == 1)
        await asyncio.wait_for(world.connection.drain(0.1), 3)
        assert [failure.requeue for failure in world.gateway.fails] == [True]
        assert engine.active == 0


async def test_a_second_signal_hurries_the_drain(tmp_path: Path) -> None:
    engine = GatedEngine()
    async with connected(tmp_path, engine) as world:
        world.gateway.hand_over(world.machine.lease(world.machine.seal()))
        await until(lambda: engine.active == 1)
        hurry = asyncio.Event()
        hurry.set()
        await asyncio.wait_for(world.connection.drain(60, hurry), 3)
        assert len(world.gateway.fails) == 1


# -- addresses --


def test_relay_addresses_with_and_without_their_path() -> None:
    assert relay_base("https://g/") == relay_base("https://g/v1/relay") == "https://g/v1/relay"
    base = "https://g/v1/relay"
    assert frames_url(base, None) == "https://g/v1/relay/frames"
    assert frames_url(base, "https://h") == frames_url(base, "https://h/v1/relay") == "https://h/v1/relay/frames"
    assert frames_url(base, "https://h/x/frames") == "https://h/x/frames"


def test_an_https_gateway_cannot_send_the_credential_over_plain_http() -> None:
    assert frames_url("https://g/v1/relay", "http://h") == "https://g/v1/relay/frames"
