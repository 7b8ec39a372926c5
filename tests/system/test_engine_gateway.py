"""Gateway, sealed relay and daemon together, with a real local server behind: OpenAI's SDK notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from lattice.core.ids import b64url
from lattice.runtime.allow import AllowList
from lattice.runtime.daemon import Daemon
from lattice.runtime.machine import Pairing
from lattice.runtime.pairing import redeem
from lattice.runtime.settings import DaemonSettings, EngineSettings, LocalApiSettings
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey
from lattice.sealing.pairing import app_key_mac, bootstrap_string, new_pairing_secret
from tests.harness import LiveGateway, running_gateway
from tests.unit.runtime.servers import TOOL_CALL, ModelServer

MESSAGES: Any = [{"role": "user", "content": "a canary prompt"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


class Machine:
    """A paired machine whose daemon runs in this process."""

    def __init__(self, state: StateDir, pairing: Pairing, daemon: Daemon, server: ModelServer) -> None:
        self.state = state
        self.pairing = pairing
        self.daemon = daemon
        self.server = server
        self.model = f"lattice:personal:{pairing.runtime}"


async def mint(live: LiveGateway, app: IdentityKey) -> str:
    """What an app does: a record, a secret of its own, a token."""
    _, made = await live.call("POST", "/v1/personal-runtimes", {"name": "machine"})
    secret = new_pairing_secret()
    mac = app_key_mac(secret, origin=live.url, runtime=made["id"], app_key=app.public.raw)
    body = {"app_key": app.public.text, "app_key_mac": b64url(mac)}
    _, minted = await live.call("POST", f"/v1/personal-runtimes/{made['id']}/bootstrap-tokens", body)
    return bootstrap_string(minted["token"], secret)


@contextlib.asynccontextmanager
async def machine_at(live: LiveGateway, root: Path, server: ModelServer) -> AsyncIterator[Machine]:
    async with server.run() as base_url:
        state = StateDir(root)
        pairing = await redeem(live.url, await mint(live, IdentityKey.generate()), state)
        settings = DaemonSettings(
            state_dir=root,
            engine=EngineSettings(kind="openai", base_url=base_url, concurrency=8),
            local_api=LocalApiSettings(enabled=False),
        )
        daemon = Daemon(settings)
        task = asyncio.create_task(daemon.run())
        try:
            await daemon.ready.wait()
            await until(lambda: (relay := daemon.status().relay) and relay.state == "connected")
            yield Machine(state, pairing, daemon, server)
        finally:
            daemon.stop()
            daemon.stop()
            await task


@pytest.fixture
async def machine(live: LiveGateway, tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine_at(live, tmp_path / "machine", ModelServer()) as running:
        yield running


async def until(condition: Callable[[], Any], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def sdk(live: LiveGateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=live.secret, max_retries=0)


async def test_chat_stream_and_embeddings(live: LiveGateway, machine: Machine) -> None:
    async with sdk(live) as client:
        whole = await client.chat.completions.create(model=machine.model, messages=MESSAGES)
        stream = await client.chat.completions.create(
            model=machine.model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        vectors = await client.embeddings.create(
            model=f"{machine.model}:nomic-embed-text", input="x", encoding_format="float"
        )
    assert whole.choices[0].message.content == "hello"
    assert whole.model == machine.model
    assert whole.model_extra == {"vendor_extra": {"kept": 1.0}}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 11
    assert vectors.data[0].embedding == [0.25, -1.5]
    assert machine.server.bodies[0]["model"] == "llama3.2"


async def test_a_stream_without_include_usage_has_no_usage(live: LiveGateway, machine: Machine) -> None:
    async with sdk(live) as client:
        stream = await client.chat.completions.create(model=machine.model, messages=MESSAGES, stream=True)
        assert all([chunk.usage is None and chunk.choices async for chunk in stream])
    assert machine.server.bodies[0]["stream_options"] == {"include_usage": True}


async def test_tools_calls_and_results_pass_through_unchanged(live: LiveGateway, machine: Machine) -> None:
    async with sdk(live) as client:
        first = await client.chat.completions.create(model=machine.model, messages=MESSAGES, tools=TOOLS)
        calls = first.choices[0].message.tool_calls
        assert calls is not None
        assert [call.model_dump() for call in calls] == [TOOL_CALL]
        assert first.choices[0].finish_reason == "tool_calls"
        followed: Any = [
            *MESSAGES,
            first.choices[0].message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ]
        second = await client.chat.completions.create(
            model=machine.model, messages=followed, tools=TOOLS, extra_body={"x_vendor": [1, {"deep": None}]}
        )
        stream = await client.chat.completions.create(model=machine.model, messages=MESSAGES, tools=TOOLS, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    assert second.choices[0].message.content == "It is sunny."
    assert machine.server.bodies[0]["tools"] == TOOLS
    assert machine.server.bodies[1]["messages"] == followed
    assert machine.server.bodies[1]["x_vendor"] == [1, {"deep": None}]
    streamed = [call for delta in deltas for call in delta.tool_calls or ()]
    assert streamed[0].model_dump() == {"index": 0, **TOOL_CALL}


async def test_the_engines_refusal_keeps_its_status(live: LiveGateway, machine: Machine) -> None:
    from aiohttp import web

    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "context too long", "type": "invalid"}}, status=400)

    machine.server.answer = refuse
    async with sdk(live) as client:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match="context too long"):
                await client.chat.completions.create(model=machine.model, messages=MESSAGES, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_stops_the_engine_within_250_ms(
    live: LiveGateway, machine: Machine, stream: bool
) -> None:
    machine.server.slow = True
    async with sdk(live) as client:
        call = asyncio.create_task(
            client.chat.completions.create(model=machine.model, messages=MESSAGES, stream=stream)
        )
        await until(lambda: machine.server.bodies)
        call.cancel()
        await asyncio.wait_for(machine.server.cancelled.wait(), 0.25)
        await asyncio.gather(call, return_exceptions=True)


async def test_a_gateway_whose_key_was_removed_is_refused(live: LiveGateway, machine: Machine) -> None:
    gateway = next(entry for entry in AllowList(machine.state).entries() if entry.kind == "gateway")
    AllowList(machine.state).remove(gateway.key)
    status, body = await live.chat(machine.model)
    assert (status, body["error"]["code"]) == (403, "sender_not_allowed")
    assert machine.server.bodies == []


async def test_an_unknown_local_model_is_refused(live: LiveGateway, machine: Machine) -> None:
    status, body = await live.chat(f"{machine.model}:nothing")
    assert (status, body["error"]["code"]) == (404, "model_not_found")


async def test_the_callers_ceiling_reaches_the_engine(live: LiveGateway, machine: Machine) -> None:
    await live.chat(machine.model, max_tokens=5)
    await live.chat(machine.model, max_completion_tokens=6)
    assert machine.server.bodies[0]["max_tokens"] == 5
    assert machine.server.bodies[1]["max_tokens"] == machine.server.bodies[1]["max_completion_tokens"] == 6


async def test_a_restarted_gateway_is_found_again(tmp_path: Path) -> None:
    server = ModelServer()
    async with contextlib.AsyncExitStack() as machines:
        async with running_gateway(tmp_path / "gateway") as first:
            port, secret = first.gateway.settings.port, first.secret
            machine = await machines.enter_async_context(machine_at(first, tmp_path / "machine", server))
            assert (await first.chat(machine.model))[0] == 200
            await first.gateway.hub.drain(0)  # as `serve` does at SIGTERM: daemons are told to come back
            await until(lambda: (relay := machine.daemon.status().relay) and relay.state == "waiting")
        async with running_gateway(tmp_path / "gateway", secret=secret, port=port) as second:
            deadline = asyncio.get_running_loop().time() + 15
            while (answer := await second.chat(machine.model))[0] != 200:
                assert asyncio.get_running_loop().time() < deadline, answer
                await asyncio.sleep(0.1)
            machine.daemon.stop()
            await until(lambda: not machine.state.locked())


async def test_many_callers_at_once(live: LiveGateway, machine: Machine) -> None:
    answers = await asyncio.gather(*(live.chat(machine.model) for _ in range(40)))
    assert {status for status, _ in answers} == {200}
    audit = await live.audit()
    assert audit.held_micro == 0


async def test_a_drained_daemon_is_unreachable_at_once(live: LiveGateway, machine: Machine) -> None:
    machine.daemon.stop()
    await until(lambda: not machine.state.locked())
    status, body = await live.chat(machine.model)
    assert (status, body["error"]["code"]) == (409, "runtime_unreachable")
