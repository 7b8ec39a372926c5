"""`kill -9` of the daemon and of the gateway in the middle of a stream, and SIGTERM: real processes, real sockets.

A caller always sees a broken answer as broken; nothing is charged twice, no money stays on hold, and whoever comes back
goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.callers import balance, counter, error_code, fund, streaming, usage_rows
from tests.engines import PacedServer
from tests.harness import MODEL, GatewayClient
from tests.processes import DaemonProcess, GatewayProcess, daemon_process, gateway_process

pytestmark = pytest.mark.slow

NAMED = "lattice:" + MODEL


class Farm(NamedTuple):
    """A gateway process, a hosted daemon process, and its model server in the test."""

    gateway: GatewayProcess
    daemon: DaemonProcess
    engine: PacedServer

    @property
    def client(self) -> GatewayClient:
        """The owner's."""
        return self.gateway.client


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    """Hosted capacity, and credits."""
    engine = PacedServer()
    async with (
        engine.run() as url,
        gateway_process(tmp_path) as gateway,
        daemon_process(gateway, url, "hosted") as daemon,
    ):
        await fund(gateway.client, 1_000_000)
        yield Farm(gateway, daemon, engine)


def is_text(event: bytes | None, text: str) -> bool:
    return event is not None and f'"content": "{text}"'.encode() in event


async def require_clean(farm: Farm) -> None:
    """The ledger, read from the file, adds up and holds nothing."""
    audit = await farm.gateway.audit()
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())


async def chat(farm: Farm) -> tuple[int, Any]:
    return await farm.client.chat(NAMED)


@pytest.mark.parametrize("comes_back", [True, False], ids=["comes back", "stays away"])
async def test_kill_9_of_the_daemon_in_a_stream(farm: Farm, comes_back: bool) -> None:
    """The caller gets an error event and no `[DONE]`; what was delivered is settled once; a new daemon serves on."""
    before = await balance(farm.client)
    async with streaming(farm.client, NAMED) as stream:
        assert is_text(await stream.next(), "one")
        await farm.daemon.kill()
        if comes_back:
            await farm.daemon.run()
        rest = await stream.rest()
    assert [error_code(item) for item in rest if not item.startswith(b":")] == ["runtime_failed"]
    (row,) = await usage_rows(farm.client)
    assert row["completion_tokens"] == 1
    assert await balance(farm.client) == (before[0] - row["charged_micro"], 0)
    assert await counter(farm.client, "lattice_works_dispatched_total") == 1
    await require_clean(farm)
    if not comes_back:
        assert (await farm.daemon.view())["state"] == "offline"
        await farm.daemon.run()
    assert (await chat(farm))[0] == 200
    await require_clean(farm)


async def test_kill_9_of_the_daemon_before_its_first_frame(farm: Farm) -> None:
    """Nobody has seen anything yet, so the restarted daemon gets the work again and the caller its answer."""
    farm.engine.hold = True
    asking = asyncio.create_task(chat(farm))
    async with asyncio.timeout(10):
        while not farm.engine.bodies:
            await asyncio.sleep(0.01)
    await farm.daemon.kill()
    farm.engine.hold = False
    await farm.daemon.run()
    assert (await asking)[0] == 200
    assert len(await usage_rows(farm.client)) == 1
    await require_clean(farm)


async def test_kill_9_of_the_gateway_in_a_stream(farm: Farm) -> None:
    """Held money is voided at the next start, what was settled before stays settled once, the caller's stream is
    visibly cut, and the same daemon reconnects by itself."""
    assert (await chat(farm))[0] == 200
    before = await balance(farm.client)
    async with streaming(farm.client, NAMED) as stream:
        assert is_text(await stream.next(), "one")
        assert (await balance(farm.client))[1] > 0
        await farm.gateway.kill()
        with pytest.raises(aiohttp.ClientError):
            await stream.rest()
    await farm.gateway.up()
    farm.engine.go_on.set()
    assert await balance(farm.client) == (sum(before), 0)
    assert len(await usage_rows(farm.client)) == 1
    await require_clean(farm)
    await farm.daemon.reachable()
    assert (await chat(farm))[0] == 200
    assert len(await usage_rows(farm.client)) == 2
    await require_clean(farm)
    assert '"event":"recovered"' in farm.gateway.logged().replace(": ", ":")


async def test_an_idempotency_key_of_a_killed_gateway(farm: Farm) -> None:
    """Whether the answer got out cannot be known, so the repeat is refused and never charged for a second time."""
    farm.engine.hold = True
    headers = {"authorization": f"Bearer {farm.client.secret}", "idempotency-key": "once"}
    body = {"model": NAMED, "messages": []}

    async def ask() -> tuple[int, Any]:
        url = farm.client.url + "/v1/chat/completions"
        async with farm.client.http.post(url, json=body, headers=headers) as response:
            return response.status, await response.json()

    asking = asyncio.create_task(ask())
    async with asyncio.timeout(10):
        while not farm.engine.bodies:
            await asyncio.sleep(0.01)
    await farm.gateway.kill()
    with contextlib.suppress(aiohttp.ClientError):
        await asking
    await farm.gateway.up()
    farm.engine.go_on.set()
    await farm.daemon.reachable()
    status, answer = await ask()
    assert (status, answer["error"]["code"]) == (409, "idempotency_result_unavailable")
    assert not await usage_rows(farm.client)
    await require_clean(farm)


async def test_kill_9_of_the_gateway_under_load(farm: Farm) -> None:
    """Wherever in its transactions each of many requests is, the books balance after the restart."""
    farm.engine.go_on.set()
    answered = 0

    async def ask_for_ever() -> None:
        nonlocal answered
        with contextlib.suppress(aiohttp.ClientError, OSError):
            while True:
                status, _ = await chat(farm)
                answered += status == 200

    for _ in range(2):
        callers = [asyncio.create_task(ask_for_ever()) for _ in range(16)]
        async with asyncio.timeout(30):
            goal = answered + 40
            while answered < goal:
                await asyncio.sleep(0.01)
        await farm.gateway.kill()
        await asyncio.gather(*callers)
        await farm.gateway.up()
        await require_clean(farm)
        await farm.daemon.reachable()
    charged = 0
    cursor, rows = "", 0
    while True:
        page = (await farm.client.call("GET", f"/v1/usage?limit=100{cursor}"))[1]
        rows += len(page["data"])
        charged += sum(row["charged_micro"] for row in page["data"])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert rows >= answered  # an answer is settled before it goes out; the last ones may not have arrived
    assert await balance(farm.client) == (1_000_000 - charged, 0)


async def test_sigterm_finishes_a_running_stream(farm: Farm) -> None:
    """The gateway drains: the stream ends properly, new work is refused with a word, and the process exits cleanly."""
    async with streaming(farm.client, NAMED) as stream:
        assert is_text(await stream.next(), "one")
        stopping = asyncio.create_task(farm.gateway.terminate())
        async with asyncio.timeout(10):
            while (await farm.client.call("GET", "/readyz"))[0] == 200:
                await asyncio.sleep(0.01)
        status, body = await chat(farm)
        assert (status, body["error"]["code"]) == (503, "draining")
        farm.engine.go_on.set()
        rest = await stream.rest()
    assert rest[-1] == b"data: [DONE]\n"
    assert await stopping == 0
    await require_clean(farm)
    await farm.gateway.up()
    assert len(await usage_rows(farm.client)) == 1
    await farm.daemon.reachable()
    assert (await chat(farm))[0] == 200


async def test_sigterm_of_the_daemon_finishes_its_stream(farm: Farm) -> None:
    """It takes nothing new, and the machine counts as gone at once instead of after a time-out."""
    async with streaming(farm.client, NAMED) as stream:
        assert is_text(await stream.next(), "one")
        stopping = asyncio.create_task(farm.daemon.terminate())
        async with asyncio.timeout(10):
            while (await farm.daemon.view())["state"] == "reachable":
                await asyncio.sleep(0.01)
        assert (await chat(farm))[1]["error"]["code"] == "no_runtime_meets_policy"
        farm.engine.go_on.set()
        assert (await stream.rest())[-1] == b"data: [DONE]\n"
    assert await stopping == 0
    assert len(await usage_rows(farm.client)) == 1
    await require_clean(farm)
