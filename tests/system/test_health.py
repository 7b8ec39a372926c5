"""Health, readiness, metrics and a gateway that stops."""

from __future__ import annotations

import asyncio

import pytest

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from tests.callers import CHAT, QUESTION, counter, hosted, require_at_rest, sdk, streaming, usage_rows
from tests.harness import MODEL, LiveGateway, ScriptedRuntime, event

NAMED = "lattice:" + MODEL


async def test_health_needs_no_key_and_tells_nothing(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    status, body = await live.call("GET", "/healthz", key="")
    assert (status, set(body)) == (200, {"status", "version", "relay_protocol", "now_ms"})
    assert (await live.call("GET", "/readyz", key=""))[0] == 200


async def test_a_database_that_does_not_answer(live: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready is refused, and a request gets 503 to try again: an outage is never a 401."""

    async def outage(*_: object) -> None:
        raise LatticeError("store_unavailable")

    monkeypatch.setattr(live.gateway.store, "read", outage)
    assert (await live.call("GET", "/healthz"))[0] == 200
    assert (await live.call("GET", "/readyz"))[0] == 503
    status, body = await live.chat("lattice:x", key="sk_lat_" + "B" * 43)
    assert (status, body["error"]["code"]) == (503, "store_unavailable")


async def test_metrics_count_what_happens(live: LiveGateway) -> None:
    runtime = await hosted(live)
    asking = asyncio.create_task(live.chat(NAMED))
    opened = runtime.open(await runtime.take())
    assert await counter(live, "lattice_works_in_flight") == 1
    await runtime.frames(opened.final(b"{}", Usage(12, 3)))
    await asking
    assert await counter(live, "lattice_works_in_flight") == 0
    assert await counter(live, "lattice_works_dispatched_total") == 1
    assert await counter(live, "lattice_works_total", outcome="completed") == 1
    assert await counter(live, "lattice_tokens_total", direction="input") == 12
    assert await counter(live, "lattice_tokens_total", direction="output") == 3
    assert await counter(live, "lattice_requests_total", route="chat/completions", status="200") == 1
    await live.gateway.hub.sweep()
    assert await counter(live, "lattice_runtimes_reachable") == 1


async def test_labels_are_not_for_callers_to_choose(live: LiveGateway) -> None:
    """Else anybody could fill the gateway's memory, and a prompt in a path would end in the metrics."""
    for number in range(3):
        await live.call("GET", f"/v1/made-up-{number}/canary")
    async with live.http.get(live.url + "/metrics") as response:
        text = await response.text()
    assert "made-up" not in text
    assert await counter(live, "lattice_requests_total", route="other", status="404") == 3


async def test_a_draining_gateway_finishes_what_runs_and_refuses_what_comes(live: LiveGateway) -> None:
    """The daemon is told, so that it looks for the next gateway; a refused request may be repeated there."""
    runtime = await hosted(live)
    async with streaming(live, NAMED) as stream:
        opened = runtime.open(await runtime.take())
        await runtime.frames(opened.frame(event("fo"), 1))
        assert await stream.next() == event("fo")[:-1]
        polling = await runtime.hold_poll()
        draining = asyncio.create_task(live.gateway.hub.drain(30))
        assert (await polling).drain
        headers = {"authorization": f"Bearer {live.secret}"}
        body = {"model": NAMED, "messages": QUESTION}
        async with live.http.post(live.url + CHAT, json=body, headers=headers) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (503, "draining")
            assert (response.headers["x-should-retry"], response.headers["retry-after"]) == ("true", "2")
        assert (await live.call("GET", "/readyz"))[0] == 503
        assert (await live.call("GET", "/healthz"))[0] == 200
        assert not draining.done()
        await runtime.frames(opened.final(event("ur", "stop"), Usage(12, 2)))
        assert (await stream.rest())[-1] == b"data: [DONE]\n"
        await draining
    assert [row["completion_tokens"] for row in await usage_rows(live)] == [2]
    await require_at_rest(live)


async def test_a_drain_that_takes_too_long_ends_the_rest_with_a_word(live: LiveGateway) -> None:
    runtime = await hosted(live)
    async with streaming(live, NAMED) as stream:
        opened = runtime.open(await runtime.take())
        await runtime.frames(opened.frame(event("fo"), 1))
        assert await stream.next() == event("fo")[:-1]
        await live.gateway.hub.drain(0)
        assert [b'"code":"draining"' in item for item in await stream.rest()] == [True]
    await require_at_rest(live)


async def test_queued_work_is_finished_by_a_drain(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """It was admitted, so its caller is owed an answer."""
    runtime.concurrency = 1
    await runtime.connect()
    asking = [asyncio.create_task(live.chat(runtime.model)) for _ in range(2)]
    first = runtime.open(await runtime.take())
    while len(live.gateway.hub.works) < 2:
        await asyncio.sleep(0.002)
    draining = asyncio.create_task(live.gateway.hub.drain(30))
    await runtime.frames(first.final(b"{}", Usage(1, 1)))
    await runtime.serve_one()
    assert [(await call)[0] for call in asking] == [200, 200]
    await draining


async def test_every_answer_has_a_request_id(live: LiveGateway) -> None:
    """Errors too, in the header and in the body, so that a log line can be found."""
    async with live.http.post(live.url + CHAT, data=b"{", headers={"x-api-key": live.secret}) as response:
        error = (await response.json())["error"]
        assert response.headers["x-request-id"] == error["request_id"]
        assert error["doc"] == "/docs/errors#invalid_request"
    async with live.http.get(live.url + "/docs/errors") as page:
        assert 'id="invalid_request"' in await page.text()


async def test_openai_s_sdk_lists_what_may_be_asked(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    await runtime.connect()
    async with sdk(live) as client:
        models = [model.id async for model in client.models.list()]
        assert models == [NAMED, runtime.model]
        assert (await client.models.retrieve(runtime.model)).owned_by.startswith("acc_")
