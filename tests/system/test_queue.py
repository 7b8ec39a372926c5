"""More work than a machine takes at once: it waits its turn, the queue is bounded, and a caller may leave it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from lattice.core.chat import Usage
from tests.callers import CHAT, QUESTION, counter, ended, require_uncharged, work_row
from tests.harness import LiveGateway, ScriptedRuntime, running_gateway

_USAGE = Usage(1, 1)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    """A gateway that lets one work wait for each machine."""
    async with running_gateway(tmp_path / "gateway", max_queue=1) as running:
        yield running


@pytest.fixture
async def runtime(live: LiveGateway) -> ScriptedRuntime:
    """A machine with one slot."""
    made = await ScriptedRuntime(live).pair()
    made.concurrency = 1
    await made.connect()
    return made


async def test_a_queued_work_is_leased_when_a_slot_frees(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    asking = [asyncio.create_task(live.chat(runtime.model)) for _ in range(2)]
    first = runtime.open(await runtime.take())
    while len(live.gateway.hub.works) < 2:
        await asyncio.sleep(0.002)
    (queued,) = live.gateway.hub.links[runtime.runtime].queue
    assert (await work_row(live, queued.work_id)).state == "queued"
    assert await counter(live, "lattice_works_dispatched_total") == 1
    await runtime.frames(first.final(b"{}", _USAGE))
    second = await runtime.take()
    assert (second.work_id, second.attempt) == (queued.work_id, 1)
    assert (await work_row(live, queued.work_id)).state == "in_flight"
    await runtime.frames(runtime.open(second).final(b"{}", _USAGE))
    assert [(await call)[0] for call in asking] == [200, 200]


async def test_a_full_queue_says_when_to_come_back(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """The third request is refused at once, unbilled, and the two before it are not disturbed."""
    asking = [asyncio.create_task(live.chat(runtime.model)) for _ in range(2)]
    while len(live.gateway.hub.works) < 2:
        await asyncio.sleep(0.002)
    headers = {"authorization": f"Bearer {live.secret}"}
    body = {"model": runtime.model, "messages": QUESTION}
    async with live.http.post(live.url + CHAT, json=body, headers=headers) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["type"]) == (429, "queue_full", "rate_limit_error")
        assert (response.headers["retry-after"], response.headers["x-should-retry"]) == ("2", "true")
        assert error["retryAfterMs"] == 2000
    for _ in range(2):
        await runtime.serve_one()
    assert [(await call)[0] for call in asking] == [200, 200]


async def test_a_caller_can_leave_the_queue(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Its place is free again, and no machine ever hears of its work."""
    first = asyncio.create_task(live.chat(runtime.model))
    work = await runtime.take()
    async with aiohttp.ClientSession() as session:
        headers = {"authorization": f"Bearer {live.secret}"}
        body = {"model": runtime.model, "messages": QUESTION}
        leaving = asyncio.create_task(session.post(live.url + CHAT, json=body, headers=headers))
        link = live.gateway.hub.links[runtime.runtime]
        while not link.queue:
            await asyncio.sleep(0.002)
        queued = link.queue[0].work_id
        leaving.cancel()
    while link.queue:
        await asyncio.sleep(0.002)
    await runtime.fail(work, "engine_unavailable")
    assert (await first)[0] == 503
    await ended(live)
    polling = await runtime.hold_poll()
    link.wake()
    assert (await polling).works == ()
    assert (await work_row(live, queued)).state == "cancelled"
    assert await counter(live, "lattice_works_dispatched_total") == 1
    await require_uncharged(live)


async def test_the_queue_of_one_machine_is_not_another_s(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    asking = [asyncio.create_task(live.chat(runtime.model)) for _ in range(2)]
    while len(live.gateway.hub.works) < 2:
        await asyncio.sleep(0.002)
    other = await ScriptedRuntime(live).pair()
    await other.connect()
    elsewhere = asyncio.create_task(live.chat(other.model))
    await other.serve_one()
    assert (await elsewhere)[0] == 200
    for _ in range(2):
        await runtime.serve_one()
    await asyncio.gather(*asking)
