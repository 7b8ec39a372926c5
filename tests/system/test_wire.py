"""What travels: everything between caller, gateway and daemon is dumped byte by byte, and searched for plaintext.

The dump takes the place of whoever can read along: on the caller's side of the gateway and on the machine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import openai
import pytest

from lattice import AsyncComputeClient, AsyncSealedTransport
from lattice.client.disk import disk_key_store
from lattice.client.store import KeyStore
from lattice.core.clock import HOUR_MS, ManualClock
from lattice.runtime.daemon import Daemon
from lattice.runtime.pairing import redeem
from lattice.runtime.settings import DaemonSettings, EngineSettings, LocalApiSettings
from lattice.runtime.state import StateDir
from tests.callers import require_at_rest, usage_rows
from tests.engines import PacedServer
from tests.harness import LiveGateway, running_gateway
from tests.unit.runtime.servers import ModelServer

PROMPT = "canary-prompt-91c7"
TOOL = "canary_tool_20aa"
ANSWER = b"one two"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
TOOLS: Any = [{"type": "function", "function": {"name": TOOL, "parameters": {"type": "object"}}}]


class Hop:
    """A TCP hop that keeps a copy of every byte, in both directions."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self.dump = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Hop]:
        """Listen; the target may be set later."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        for source, sink in ((reader, there_writer), (there_reader, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                self.dump += data
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    def __contains__(self, text: str | bytes) -> bool:
        return (text.encode() if isinstance(text, str) else text) in self.dump


class Scene(NamedTuple):
    """A gateway behind a tapped hop, a paired real daemon behind the same hop, and an app that paired it."""

    live: LiveGateway
    hop: Hop
    app: AsyncComputeClient
    store: KeyStore
    engine: ModelServer
    runtime: str


@asynccontextmanager
async def daemon_on(
    live: LiveGateway, root: Path, bootstrap: str, engine: ModelServer, **given: Any
) -> AsyncIterator[Daemon]:
    """Redeem the bootstrap string and run a daemon in this process until the block ends."""
    async with engine.run() as base_url:
        state = StateDir(root)
        await redeem(live.url, bootstrap, state, **given)
        settings = DaemonSettings(
            state_dir=root,
            engine=EngineSettings(kind="openai", base_url=base_url, concurrency=8),
            local_api=LocalApiSettings(enabled=False),
        )
        daemon = Daemon(settings, **given)
        running = asyncio.create_task(daemon.run())
        try:
            yield daemon
        finally:
            daemon.stop()
            await running


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    hop, engine = Hop(), PacedServer()
    engine.go_on.set()
    async with (
        hop.open(),
        running_gateway(tmp_path / "gateway", public_url=f"http://127.0.0.1:{hop.port}") as live,
    ):
        hop.target = live.gateway.settings.port
        store = disk_key_store(tmp_path / "app")
        async with AsyncComputeClient(live.url, live.secret, store=store) as app:
            runtime = await app.create_personal_runtime("laptop")
            bootstrap = await app.bootstrap_personal_runtime(runtime.id)
            async with daemon_on(live, tmp_path / "machine", bootstrap, engine):
                while not await app.list_reachable_personal_runtimes():
                    await asyncio.sleep(0.01)
                yield Scene(live, hop, app, store, engine, runtime.id)


async def test_an_end_to_end_chat_leaves_no_plaintext_on_any_hop(scene: Scene) -> None:
    """Whole, streamed and with tools. Neither the caller's hop nor the machine's shows question or answer."""
    app, runtime = scene.app, scene.runtime
    answer = await app.chat_complete_for_personal_runtime(runtime, MESSAGES, tools=TOOLS)
    assert answer.text == ANSWER.decode()
    async with await app.chat_stream_for_personal_runtime(runtime, MESSAGES) as stream:
        assert "".join([delta.text async for delta in stream]) == ANSWER.decode()
    assert [body["messages"] for body in scene.engine.bodies] == [MESSAGES] * 2
    assert scene.engine.bodies[0]["tools"] == TOOLS
    assert answer.work_id is not None
    assert answer.work_id in scene.hop, "the dump has the routing metadata, so it is of the right traffic"
    for secret in (PROMPT, TOOL, ANSWER, b"one", b'"messages"', b'"content"', b"chat.completion"):
        assert secret not in scene.hop
    (row, _) = await usage_rows(scene.live)
    assert row["sealing"] == "end_to_end"
    await require_at_rest(scene.live)


async def test_openai_s_sdk_over_the_sealed_transport_leaves_none_either(scene: Scene) -> None:
    http = httpx2.AsyncClient(transport=AsyncSealedTransport(scene.store))
    url, key = f"{scene.live.url}/v1", scene.live.secret
    async with openai.AsyncOpenAI(base_url=url, api_key=key, http_client=http) as client:
        answer = await client.chat.completions.create(model=f"lattice:personal:{scene.runtime}", messages=MESSAGES)
    assert answer.choices[0].message.content == ANSWER.decode()
    assert PROMPT not in scene.hop
    assert ANSWER not in scene.hop


async def test_the_dump_would_show_it(scene: Scene) -> None:
    """The control: an unmodified client, whose own hop to the gateway is not sealed, is seen at once."""
    status, _ = await scene.live.chat(f"lattice:personal:{scene.runtime}", messages=MESSAGES)
    assert status == 200
    assert PROMPT in scene.hop
    assert ANSWER in scene.hop


async def test_the_machine_s_hop_is_sealed_for_an_unmodified_client_too(tmp_path: Path) -> None:
    """Mode `gateway`: the caller reaches the gateway directly, and only the relay goes through the tapped hop."""
    hop, engine = Hop(), PacedServer()
    engine.go_on.set()
    async with (
        hop.open(),
        running_gateway(tmp_path / "gateway", public_url=f"http://127.0.0.1:{hop.port}") as live,
    ):
        hop.target = live.gateway.settings.port
        made = (await live.call("POST", "/v1/personal-runtimes", {}))[1]
        path = f"/v1/personal-runtimes/{made['id']}/bootstrap-tokens"
        token = (await live.call("POST", path, {}))[1]["token"]
        async with daemon_on(live, tmp_path / "machine", token, engine):
            while (await live.call("GET", f"/v1/personal-runtimes/{made['id']}"))[1]["state"] != "reachable":
                await asyncio.sleep(0.01)
            live.url = f"http://127.0.0.1:{hop.target}"
            del hop.dump[:]
            for stream in (False, True):
                headers = {"authorization": f"Bearer {live.secret}"}
                body = {"model": f"lattice:personal:{made['id']}", "messages": MESSAGES, "stream": stream}
                async with live.http.post(live.url + "/v1/chat/completions", json=body, headers=headers) as answer:
                    assert answer.status == 200
                    assert b"two" in await answer.read()
            assert made["id"] in hop
            for secret in (PROMPT, ANSWER, b"one", b"chat.completion", live.secret):
                assert secret not in hop


async def test_a_real_machine_asleep_for_25_hours(tmp_path: Path) -> None:
    """A real daemon on one clock with the gateway: its keys expire while it sleeps, callers are refused unbilled, and
    with its next poll it has announced new ones and answers."""
    clock, engine = ManualClock(), PacedServer()
    engine.go_on.set()
    async with running_gateway(tmp_path / "gateway", clock=clock) as live:
        made = (await live.call("POST", "/v1/personal-runtimes", {}))[1]
        model = f"lattice:personal:{made['id']}"
        path = f"/v1/personal-runtimes/{made['id']}"
        token = (await live.call("POST", f"{path}/bootstrap-tokens", {}))[1]["token"]
        async with daemon_on(live, tmp_path / "machine", token, engine, clock=clock):
            while (await live.call("GET", path))[1]["state"] != "reachable":
                await asyncio.sleep(0.01)
            before = (await live.call("GET", path))[1]["key_config"]
            assert (await live.chat(model))[0] == 200
            clock.advance(25 * HOUR_MS)
            status, body = await live.chat(model)
            assert (status, body["error"]["code"]) == (422, "work_key_expired")
            assert len(await usage_rows(live)) == 1
            live.gateway.hub.links[made["id"]].wake()
            async with asyncio.timeout(10):
                while (await live.call("GET", path))[1]["key_config"] == before:
                    await asyncio.sleep(0.01)
            assert (await live.chat(model))[0] == 200
            await require_at_rest(live)
