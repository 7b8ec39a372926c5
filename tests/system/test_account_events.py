"""`GET /v1/account/events`: what happens to all models, workers and credits of an account, once each and in order."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lattice.client.management import ManagementClient
from lattice.gateway.encrypted.event_rows import events_after
from tests.callers import fund, new_account
from tests.harness import LiveGateway, running_gateway
from tests.support.echo_worker import Deployed, EchoWorker, priced_worker

PATH = "/v1/account/events"


async def heard(live: LiveGateway, count: int, *, key: str | None = None, after: str | None = None) -> list[Any]:
    """The first events of the stream: id, kind and body."""
    headers = {"authorization": f"Bearer {key or live.secret}"} | ({"last-event-id": after} if after else {})
    found: list[tuple[str, str, dict[str, Any]]] = []
    async with asyncio.timeout(20), live.http.get(live.url + PATH, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        lines: dict[str, str] = {}
        while len(found) < count:
            line = (await answer.content.readline()).decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if line:
                lines[name] = value
            elif "data" in lines:
                found.append((lines["id"], lines["event"], json.loads(lines["data"])))
                lines = {}
    return found


async def silent(live: LiveGateway, key: str, after: str | None = None) -> bool:
    """Whether the stream says nothing for longer than the gateway takes to look."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1.5):
            return not await heard(live, 1, key=key, after=after)
    return True


@asynccontextmanager
async def hook(got: list[tuple[str, str, dict[str, Any]]]) -> AsyncIterator[str]:
    """A webhook's address; what came: path, `lattice-event`, body."""

    async def take(request: web.Request) -> web.Response:
        got.append((request.path, request.headers["lattice-event"], await request.json()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/{name}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with running_gateway(tmp_path / "gateway", webhook_private_addresses=True) as live:
        yield live


async def two_running(live: LiveGateway) -> tuple[list[Deployed], list[EchoWorker]]:
    """Two models, each with a worker: the balance is more than ten minutes of one, and less of both."""
    await fund(live, 450_000)
    deployed = [await Deployed(live).deploy() for _ in range(2)]
    return deployed, [await priced_worker(each, "small") for each in deployed]


async def test_a_low_balance_is_one_event_of_which_every_model_s_webhook_hears(live: LiveGateway) -> None:
    got: list[tuple[str, str, dict[str, Any]]] = []
    async with hook(got) as address:
        await fund(live, 450_000)
        deployed = [await Deployed(live).deploy() for _ in range(2)]
        for name, each in zip("ab", deployed, strict=True):
            change = {"webhook_url": f"{address}/{name}"}
            assert (await live.call("PATCH", f"/v1/encrypted-models/{each.model}", change))[0] == 200
        for each in deployed:
            await priced_worker(each, "small")
        events = await heard(live, 7)
        models = {each.model for each in deployed}
        kinds = [kind for _, kind, _ in events]
        assert kinds == [*["version.uploaded", "version.ready"] * 2, *["worker.active"] * 2, "credits.low"]
        assert {body["model"] for _, kind, body in events if kind == "worker.active"} == models
        ids = [identity for identity, _, _ in events]
        assert ids == sorted(ids) == [body["id"] for _, _, body in events]
        ((low_id, _, low),) = [event for event in events if event[1] == "credits.low"]
        assert set(low["models"]) == models
        assert low["micro_per_second"] == 1000
        assert low["remaining_seconds"] == low["available_micro"] // low["micro_per_second"]

        async with asyncio.timeout(10):
            while len([name for name, _, body in got if body["kind"] == "credits.low"]) < 2:
                await asyncio.sleep(0.02)
        carried = [each for each in got if each[2]["kind"] == "credits.low"]
        assert sorted(carried, key=str) == [("/a", low_id, low), ("/b", low_id, low)]
    for each in deployed:  # a model's own stream is about the model
        rows = await live.gateway.store.read(events_after, each.model, "")
        assert [row.kind for row in rows] == ["version.uploaded", "version.ready", "worker.active"]
    assert (await live.gateway.store.read(events_after, deployed[0].model, ids[0]))[0].kind == "version.ready"


async def test_the_stream_goes_on_behind_the_last_event_and_tells_what_happens_then(live: LiveGateway) -> None:
    _, workers = await two_running(live)
    seen = await heard(live, 7)
    last = seen[-1][0]
    assert await heard(live, 3, after=seen[3][0]) == seen[4:]
    coming = asyncio.create_task(heard(live, 1, after=last))
    await live.call("DELETE", f"/v1/workers/{workers[0].id}")
    await workers[0].poll()
    await workers[0].poll(ending=True)
    ((_, kind, body),) = await coming
    assert (kind, body["worker"], body["reason"]) == ("worker.stopped", workers[0].id, "requested")
    assert (await live.call("GET", f"{PATH}?after=nonsense"))[1]["error"] == "invalid_request"


async def test_a_key_hears_what_its_scopes_are_about_and_nothing_of_other_accounts(live: LiveGateway) -> None:
    await two_running(live)
    everything = await heard(live, 7)

    async def kinds(scope: str, count: int) -> list[str]:
        key = await live.new_key(scopes=[scope])
        found = await heard(live, count, key=key)
        assert await silent(live, key, found[-1][0])
        return [kind for _, kind, _ in found]

    assert await kinds("lattice:credits:read", 1) == ["credits.low"]
    assert await kinds("lattice:workers:manage", 2) == ["worker.active"] * 2
    assert await kinds("lattice:models:manage", 7) == [kind for _, kind, _ in everything]
    plain = await live.new_key(scopes=["lattice:compute:inference"])
    status, refused = await live.call("GET", PATH, key=plain)
    assert (status, refused["error"]) == (403, "insufficient_scopes")
    _, stranger = await new_account(live)
    assert await silent(live, stranger)
    assert (await live.call("GET", PATH, key=""))[0] == 401


async def test_the_sdk_and_the_command_line_follow_it(live: LiveGateway) -> None:
    await two_running(live)
    wanted = [body for _, _, body in await heard(live, 7)]

    def sdk() -> list[dict[str, Any]]:
        with ManagementClient(live.url, live.secret) as client:
            stream = client.account_events()
            first = [next(stream) for _ in range(4)]
            stream.close()  # type: ignore[attr-defined]
            rest = client.account_events(after=first[-1]["id"])
            return first + [next(rest) for _ in range(3)]

    assert await asyncio.to_thread(sdk) == wanted
    environment = {**os.environ, "LATTICE_BASE_URL": live.url, "LATTICE_API_KEY": live.secret}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lattice.cli.main", "events", "--count", "2", "--after", wanted[4]["id"], "--json",
        stdout=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert [json.loads(line) for line in out.splitlines()] == wanted[5:]
