"""An unreachable machine: 409, nothing dispatched, nothing sent elsewhere, and no second request from OpenAI's SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import openai
import pytest
from aiohttp import ClientSession, web

from lattice.core.chat import Usage
from lattice.core.clock import HOUR_MS, MINUTE_MS, ManualClock
from tests.callers import QUESTION, SealedCaller, counter, hosted, require_uncharged, sdk
from tests.harness import LiveGateway, RelayRefused, ScriptedRuntime, running_gateway

_USAGE = Usage(1, 1)


@asynccontextmanager
async def counting_proxy(live: LiveGateway) -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP hop that counts what passes: its address and the paths of all requests."""
    seen: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        seen.append(request.path)
        headers = {name: request.headers[name] for name in ("authorization", "content-type") if name in request.headers}
        async with ClientSession() as session:
            url = live.url + request.path
            async with session.request(request.method, url, data=await request.read(), headers=headers) as answer:
                kept = {
                    n: v for n, v in answer.headers.items() if n.lower().startswith(("x-", "retry", "content-type"))
                }
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", seen
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_s_sdk_asks_exactly_once(live: LiveGateway, runtime: ScriptedRuntime, stream: bool) -> None:
    """It retries a 409 by itself unless told otherwise; with an unmodified client we can only tell it by a header."""
    async with counting_proxy(live) as (url, seen), sdk(live, base_url=url) as client:
        with pytest.raises(openai.ConflictError) as caught:
            await client.chat.completions.create(model=runtime.model, messages=QUESTION, stream=stream)
    assert caught.value.code == "runtime_unreachable"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert seen == ["/v1/chat/completions"]
    assert await counter(live, "lattice_works_dispatched_total") == 0


async def test_openai_s_sdk_does_retry_where_it_may(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """The proof that the count above means something: a full queue is asked again."""
    live.gateway.presence._max_queue = 0
    runtime.concurrency = 1
    await runtime.connect()
    first = asyncio.create_task(live.chat(runtime.model))
    work = await runtime.take()
    async with counting_proxy(live) as (url, seen), sdk(live, base_url=url, max_retries=1) as client:
        asking = asyncio.create_task(client.chat.completions.create(model=runtime.model, messages=QUESTION))
        while not seen:
            await asyncio.sleep(0.01)
        await runtime.frames(runtime.open(work).final(b"{}", _USAGE))
        serving = asyncio.create_task(runtime.serve_one())
        assert (await asking).choices[0].message.content == "four"
        await serving
    assert len(seen) == 2
    assert (await first)[0] == 200


async def test_the_work_goes_nowhere_else(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Another machine of the same owner, and hosted capacity with the same model, poll and get nothing."""
    hosted_one = await hosted(live)
    other = await ScriptedRuntime(live).pair()
    await other.connect()
    polls = [await machine.hold_poll() for machine in (other, hosted_one)]
    status, body = await live.chat(runtime.model)
    assert (status, body["error"]["code"]) == (409, "runtime_unreachable")
    caller = SealedCaller(live, runtime)
    assert (await caller.chat(caller.seal())).code == "runtime_unreachable"
    for machine in (other, hosted_one):
        live.gateway.hub.links[machine.runtime].wake()
    assert [(await poll).works for poll in polls] == [(), ()]
    assert await counter(live, "lattice_works_dispatched_total") == 0
    await require_uncharged(live)


async def test_the_error_says_why(tmp_path: Path) -> None:
    """Not paired, never seen, gone for minutes, revoked: each with its own words and the next command."""
    clock = ManualClock()
    async with running_gateway(tmp_path, clock=clock) as live:
        unpaired = (await live.call("POST", "/v1/personal-runtimes", {}))[1]["id"]
        runtime = await ScriptedRuntime(live).pair()

        async def said(runtime_id: str) -> str:
            status, body = await live.chat(f"lattice:personal:{runtime_id}")
            assert (status, body["error"]["code"]) == (409, "runtime_unreachable")
            assert "lattice-ctl" in body["error"]["message"]
            return str(body["error"]["message"])

        assert "not paired" in await said(unpaired)
        assert "has polled" in await said(runtime.runtime)
        await runtime.connect()
        clock.advance(4 * MINUTE_MS)
        assert "4 minutes" in await said(runtime.runtime)
        await live.call("DELETE", f"/v1/personal-runtimes/{runtime.runtime}")
        assert "revoked" in await said(runtime.runtime)


async def test_a_machine_that_stops_polling_goes_offline(tmp_path: Path) -> None:
    """Reachability is what the last poll says, and not a stored state."""
    clock = ManualClock()
    async with running_gateway(tmp_path, clock=clock) as live:
        runtime = await ScriptedRuntime(live).pair()
        path = f"/v1/personal-runtimes/{runtime.runtime}"
        await runtime.connect()
        assert (await live.call("GET", path))[1]["state"] == "reachable"
        clock.advance(HOUR_MS)
        assert (await live.call("GET", path))[1]["state"] == "offline"
        assert runtime.model not in str(await live.call("GET", "/v1/models"))


async def test_a_draining_machine_is_unreachable(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    await runtime.connect()
    polling = await runtime.hold_poll(draining=True)
    status, body = await live.chat(runtime.model)
    assert (status, body["error"]["code"]) == (409, "runtime_unreachable")
    live.gateway.hub.links[runtime.runtime].wake()
    await polling


async def test_a_revoked_machine_is_told_so_and_gets_nothing(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Its held poll ends at once, its running work fails, and its credential opens nothing any more."""
    await runtime.connect()
    asking = asyncio.create_task(live.chat(runtime.model))
    work = await runtime.take()
    polling = await runtime.hold_poll()
    status, body = await live.call("DELETE", f"/v1/personal-runtimes/{runtime.runtime}")
    assert (status, body["state"]) == (200, "revoked")
    assert (await asking)[0] == 409
    for call in (polling, runtime.frames(runtime.open(work).final(b"{}", _USAGE)), runtime.poll()):
        with pytest.raises(RelayRefused) as refused:
            await call
        assert (refused.value.status, refused.value.code) == (401, "revoked_grant")
    await require_uncharged(live)
