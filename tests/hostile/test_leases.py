"""Lost leases, restarted daemons and killed pollers: late results do not count; work is not lost, and not run twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from lattice.core.clock import SECOND_MS, ManualClock
from lattice.core.relay import LEASE_MS, PROTOCOL_VERSION, REACHABLE_MS, Announcement, PollRequest, WorkRef
from tests.callers import (
    balance,
    counter,
    ended,
    error_code,
    hosted,
    require_at_rest,
    require_uncharged,
    streaming,
    usage_rows,
    work_row,
)
from tests.harness import LiveGateway, RelayRefused, ScriptedRuntime, event, running_gateway, whole_answer
from tests.hostile.attacks import USAGE, honest

MODEL = "lattice:smollm2-135m-instruct"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def timed(tmp_path: Path, clock: ManualClock) -> AsyncIterator[LiveGateway]:
    async with running_gateway(tmp_path / "gateway", clock=clock) as live:
        yield live


@pytest.fixture
async def paid(timed: LiveGateway) -> ScriptedRuntime:
    """Hosted capacity under the test's clock."""
    return await hosted(timed)


async def test_a_result_after_the_lease_expired_is_lost_and_free(
    timed: LiveGateway, paid: ScriptedRuntime, clock: ManualClock
) -> None:
    """The machine hung; its work got another attempt, which alone answers and is paid once."""
    asking = asyncio.create_task(timed.chat(MODEL))
    late = paid.open(await paid.take())
    polling = await paid.hold_poll()
    clock.advance(LEASE_MS)
    await timed.gateway.hub.sweep()
    (second,) = (await polling).works
    assert (second.work_id, second.attempt) == (late.work.work_id, 2)
    answer = late.final(whole_answer("late"), USAGE)
    assert (await paid.frames(answer)).lost == (WorkRef(late.work.work_id, 1),)
    await paid.frames(paid.open(second).final(whole_answer("in time"), USAGE))
    status, body = await asking
    assert (status, body["choices"][0]["message"]["content"]) == (200, "in time")
    assert len(await usage_rows(timed)) == 1
    await require_at_rest(timed)


async def test_a_result_after_the_work_ended_is_lost_and_free(
    timed: LiveGateway, paid: ScriptedRuntime, clock: ManualClock
) -> None:
    """The deadline passed: 504, the hold is voided, and what comes then changes nothing."""
    before = await balance(timed)
    asking = asyncio.create_task(timed.chat(MODEL))
    late = paid.open(await paid.take())
    polling = await paid.hold_poll()
    clock.advance(600 * SECOND_MS)
    await timed.gateway.hub.sweep()
    assert (await polling).cancels == (WorkRef(late.work.work_id, 1),)
    status, body = await asking
    assert (status, body["error"]["code"]) == (504, "personal_lattice_execution_timeout")
    assert (await paid.frames(late.final(whole_answer(), USAGE))).lost
    assert (await work_row(timed, late.work.work_id)).state == "expired"
    assert await balance(timed) == before
    await require_uncharged(timed)


async def test_no_second_attempt_once_the_caller_has_a_frame(
    timed: LiveGateway, paid: ScriptedRuntime, clock: ManualClock
) -> None:
    """Half an answer followed by the start of another would be garbage: the stream ends in an error instead."""
    async with streaming(timed, MODEL) as stream:
        opened = paid.open(await paid.take())
        await paid.frames(opened.frame(event("fo"), 1))
        assert await stream.next() == event("fo")[:-1]
        await paid.hold_poll()
        clock.advance(LEASE_MS)
        await timed.gateway.hub.sweep()
        last = await stream.rest()
    assert [error_code(item) for item in last] == ["runtime_failed"]
    assert await counter(timed, "lattice_works_dispatched_total") == 1
    (row,) = await usage_rows(timed)
    assert row["completion_tokens"] == 1
    await require_at_rest(timed)


async def test_attempts_end(timed: LiveGateway, paid: ScriptedRuntime) -> None:
    """A machine that gives everything back does not keep a caller waiting for ever."""
    asking = asyncio.create_task(timed.chat(MODEL))
    attempts = []
    for _ in range(3):
        work = await paid.take()
        attempts.append(work.attempt)
        await paid.fail(work, "engine_unavailable", requeue=True)
    status, body = await asking
    assert attempts == [1, 2, 3]
    assert (status, body["error"]["code"]) == (503, "engine_unavailable")
    await require_uncharged(timed)


async def test_renewed_work_keeps_its_lease(timed: LiveGateway, paid: ScriptedRuntime, clock: ManualClock) -> None:
    """A slow model is not a dead one; the renewal is durable before the daemon hears of it."""
    asking = asyncio.create_task(timed.chat(MODEL))
    opened = paid.open(await paid.take())
    for _ in range(3):
        polling = await paid.hold_poll()
        clock.advance(LEASE_MS - SECOND_MS)
        assert not (await paid.renew(opened.work)).lost
        await timed.gateway.hub.sweep()
        timed.gateway.hub.links[paid.runtime].wake()
        await polling
    row = await work_row(timed, opened.work.work_id)
    assert row.lease_expires_ms == clock.now_ms() + LEASE_MS
    await paid.frames(opened.final(whole_answer(), USAGE))
    assert (await asking)[0] == 200


# --- sessions --------------------------------------------------------------------------------------------------------


async def test_a_restarted_daemon_takes_over_and_the_old_process_is_lost(live: LiveGateway) -> None:
    """Two processes with one pairing: the newer one has the work, and the older one's result is not charged."""
    old = await hosted(live)
    asking = asyncio.create_task(live.chat(MODEL))
    late = old.open(await old.take())
    await old.poll_once()
    new = _another_process(old)
    again = await new.take()
    assert (again.work_id, again.attempt) == (late.work.work_id, 2)
    await new.poll_once()
    assert (await old.frames(late.final(whole_answer("old"), USAGE))).lost
    third = await old.take()  # the old process goes on polling, which takes over in turn
    assert third.attempt == 3
    await old.frames(old.open(third).final(whole_answer("third"), USAGE))
    assert (await asking)[1]["choices"][0]["message"]["content"] == "third"
    assert len(await usage_rows(live)) == 1


async def test_an_older_session_of_the_same_process_is_told_to_stop(
    live: LiveGateway, runtime: ScriptedRuntime
) -> None:
    """A poll that was under way when the daemon opened a new session must not steal the new one's work."""
    await runtime.connect()
    delayed = runtime.session
    runtime.new_session()
    await runtime.connect()
    asking = asyncio.create_task(live.chat(runtime.model))
    while not live.gateway.hub.works:
        await asyncio.sleep(0.002)
    assert (await runtime.poll(session=delayed, announce=False)).ended
    await runtime.serve_one()
    assert (await asking)[0] == 200


async def test_a_held_poll_ends_when_a_newer_session_opens(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    await runtime.connect()
    held = await runtime.hold_poll()
    runtime.new_session()
    await runtime.connect()
    assert (await held).ended


async def test_work_goes_on_over_a_reconnect_of_the_same_process(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Leases belong to the process, not to its connection: nothing is started again."""
    await runtime.connect()
    async with streaming(live, runtime.model) as stream:
        opened = runtime.open(await runtime.take())
        first, *rest = honest(opened)
        await runtime.frames(first)
        assert await stream.next() == event("fo")[:-1]
        await runtime.poll_once()
        runtime.new_session()
        await runtime.connect()
        assert not (await runtime.frames(*rest)).lost
        assert (await stream.rest())[-1] == b"data: [DONE]\n"
    assert await counter(live, "lattice_works_dispatched_total") == 1


async def test_a_poller_killed_with_undelivered_work_resumes(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """The reply with the work went out and nobody acknowledged it. The same process or a new one gets it again."""
    await runtime.connect()
    for restarted in (False, True):
        asking = asyncio.create_task(live.chat(runtime.model))
        unseen = await runtime.take()
        runtime.new_session(restarted=restarted)
        work = await runtime.take()
        assert (work.work_id, work.attempt) == (unseen.work_id, unseen.attempt)
        await runtime.frames(runtime.open(work).final(whole_answer(), USAGE))
        assert (await asking)[0] == 200
    assert await counter(live, "lattice_works_total", outcome="completed") == 2


async def test_a_poller_killed_while_it_waits_gets_the_work_of_the_gap(
    live: LiveGateway, runtime: ScriptedRuntime
) -> None:
    """Its connection is reset without a word; work that arrives meanwhile waits for it a few seconds."""
    await runtime.connect()
    async with aiohttp.ClientSession() as doomed:
        said = Announcement((runtime.key_config,), runtime.offers, runtime.concurrency)
        message = PollRequest(PROTOCOL_VERSION, runtime.session, runtime.instance, runtime.ack, said)
        headers = {"authorization": f"Bearer {runtime.credential}"}
        url = f"{live.url}/v1/relay/poll"
        polling = asyncio.create_task(doomed.post(url, data=msgspec.msgpack.encode(message), headers=headers))
        link = live.gateway.hub.links[runtime.runtime]
        while link._waiter is None:
            await asyncio.sleep(0.002)
        polling.cancel()
        while link.dropped_ms is None:
            await asyncio.sleep(0.002)
    asking = asyncio.create_task(live.chat(runtime.model))
    while not live.gateway.hub.works:
        await asyncio.sleep(0.002)
    runtime.new_session(restarted=True)
    await runtime.serve_one()
    assert (await asking)[0] == 200


async def test_a_machine_that_does_not_come_back_fails_its_work(
    timed: LiveGateway, paid: ScriptedRuntime, clock: ManualClock
) -> None:
    asking = asyncio.create_task(timed.chat(MODEL))
    await paid.take()
    clock.advance(REACHABLE_MS)
    await timed.gateway.hub.sweep()
    status, body = await asking
    assert (status, body["error"]["code"]) == (502, "runtime_failed")
    await require_uncharged(timed)


async def test_a_daemon_of_a_forgotten_session_is_told_to_start_anew(
    live: LiveGateway, runtime: ScriptedRuntime
) -> None:
    """After a restart the gateway knows no session; a poll that announces nothing cannot open one."""
    for call in (runtime.poll(announce=False), runtime.post("renew", {"session": "s", "works": []})):
        with pytest.raises(RelayRefused) as refused:
            await call
        assert (refused.value.status, refused.value.code) == (409, "lease_lost")


async def test_another_protocol_version_is_refused(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    with pytest.raises(RelayRefused) as refused:
        await runtime.poll(protocol=2)
    assert (refused.value.status, refused.value.code) == (426, "protocol_unsupported")


def _another_process(runtime: ScriptedRuntime) -> ScriptedRuntime:
    """A second daemon process with the same state directory."""
    twin = ScriptedRuntime(runtime.live, runtime.kind)
    for name in ("identity", "clock", "runtime", "credential", "key_config", "work_key", "offers"):
        setattr(twin, name, getattr(runtime, name))
    return twin


async def test_leases_survive_in_the_database(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """What runs is durable before the daemon has it, so that a crash finds it."""
    await runtime.connect()
    asking = asyncio.create_task(live.chat(runtime.model))
    work = await runtime.take()
    row = await work_row(live, work.work_id)
    assert (row.state, row.attempt, row.gateway_id) == ("in_flight", 1, live.gateway.hub.gateway_id)
    await runtime.frames(runtime.open(work).final(whole_answer(), USAGE))
    assert (await asking)[0] == 200
    await ended(live)
    assert (await work_row(live, work.work_id)).state == "completed"
