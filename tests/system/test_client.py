"""The SDK against a real gateway and a real daemon, whose engine a test writes: pairing, sealing, receipts, money."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from lattice import AsyncComputeClient, AsyncSealedTransport, ComputeClient, LatticeError
from lattice.client.disk import disk_key_store
from lattice.client.management import ManagementClient
from lattice.client.store import KeyStore, memory_key_store
from lattice.core.clock import HOUR_MS, ManualClock, SystemClock
from lattice.core.relay import ModelOffer
from lattice.runtime.allow import AllowList
from lattice.runtime.daemon import Daemon
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.pairing import redeem
from lattice.runtime.settings import DaemonSettings, LocalApiSettings
from lattice.runtime.state import StateDir
from tests.harness import LiveGateway, event, running_gateway, whole_answer

ASK: list[Any] = [{"role": "user", "content": "the canary prompt"}]


class Events:
    """The events of a scripted stream."""

    def __init__(self, *events: bytes, stuck: bool = False) -> None:
        self._events = list(events)
        self._stuck = stuck
        self.closed = False

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> list[bytes]:
        if not self._events:
            raise StopAsyncIteration
        if self._stuck and len(self._events) < 4:
            await asyncio.sleep(60)
        return [self._events.pop(0)]

    async def aclose(self) -> None:
        self.closed = True


class ScriptedEngine:
    """Answers "four", remembers what it was asked, and can refuse."""

    name = "scripted"

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.refusal: bytes | None = None
        self.whole = whole_answer()
        self.stuck = False
        self.streams: list[Events] = []

    async def start(self) -> None:
        """Ready."""

    async def stop(self) -> None:
        """Nothing to give back."""

    async def offers(self) -> tuple[ModelOffer, ...]:
        return (ModelOffer("tiny", ("chat", "embeddings"), tools=True, digest="ab" * 32),)

    async def chat(self, body: dict[str, Any], *, stream: bool) -> EngineReply:
        self.asked.append(body)
        if self.refusal is not None:
            return EngineReply(400, self.refusal)
        if not stream:
            return EngineReply(200, self.whole)
        usage = {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 2}}
        last = b"data: " + json.dumps(usage).encode() + b"\n\n"
        parts = (event("fo"), event("ur"), event("", "stop"), last, b"data: [DONE]\n\n")
        self.streams.append(Events(*parts, stuck=self.stuck))
        return EngineReply(200, events=self.streams[-1])

    async def embeddings(self, body: dict[str, Any]) -> EngineReply:
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return EngineReply(200, json.dumps({"object": "list", "model": "x", "data": data, "usage": usage}).encode())


class Machine:
    """A person's machine: state on disk, a real daemon, a scripted engine."""

    def __init__(self, folder: Path, live: LiveGateway) -> None:
        self.state = StateDir(folder)
        self.live = live
        self.engine = ScriptedEngine()
        self.runtime = ""

    async def connect(self, bootstrap: str) -> None:
        """What `lattice-ctl relay connect` does."""
        self.state.prepare()
        self.runtime = (await redeem(self.live.url, bootstrap, self.state)).runtime

    async def serve(self) -> tuple[Daemon, asyncio.Task[None]]:
        """What `lattice-ctl daemon run` does, until its first poll."""
        settings = DaemonSettings(state_dir=self.state.root, local_api=LocalApiSettings(enabled=False))
        daemon = Daemon(settings, engine=self.engine)
        return daemon, asyncio.create_task(daemon.run())


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return disk_key_store(tmp_path / "client")


@pytest.fixture
async def client(live: LiveGateway, store: KeyStore) -> AsyncIterator[AsyncComputeClient]:
    async with AsyncComputeClient(live.url, live.secret, store=store) as opened:
        yield opened


@pytest.fixture
async def machine(live: LiveGateway, client: AsyncComputeClient, tmp_path: Path) -> AsyncIterator[Machine]:
    """Paired from the client and polling."""
    made = Machine(tmp_path / "machine", live)
    runtime = await client.create_personal_runtime("laptop")
    assert runtime.trust == "unpaired"
    await made.connect(await client.bootstrap_personal_runtime(runtime.id))
    daemon, task = await made.serve()
    while not await client.list_reachable_personal_runtimes():
        await asyncio.sleep(0.01)
    yield made
    daemon.stop()
    await task


async def test_the_first_story(client: AsyncComputeClient, machine: Machine) -> None:
    (runtime,) = await client.list_reachable_personal_runtimes()
    assert runtime.trust == "verified"
    answer = await client.chat_complete_for_personal_runtime(runtime.id, ASK, max_tokens=7)
    assert (answer.text, answer.sealing, answer.runtime) == ("four", "end_to_end", machine.runtime)
    assert answer.receipt is not None
    assert answer.receipt.verified
    assert answer.receipt.receipt.model_digest == "ab" * 32
    assert answer.request_id is not None
    assert answer.request_id.startswith("req_")
    assert machine.engine.asked[0]["messages"] == ASK
    (row,) = [row async for row in client.usage()]
    assert (row["work"], row["sealing"], row["charged_micro"]) == (answer.work_id, "end_to_end", 0)


async def test_a_stream_from_the_real_thing(client: AsyncComputeClient, machine: Machine) -> None:
    async with await client.chat_stream_for_personal_runtime(machine.runtime, ASK) as stream:
        texts = [delta.text async for delta in stream]
    assert "".join(texts) == "four"
    assert stream.receipt is not None
    assert stream.usage is not None
    assert (stream.usage.prompt_tokens, stream.usage.completion_tokens) == (12, 2)


async def test_the_synchronous_client_and_the_other_mode(live: LiveGateway, machine: Machine, store: KeyStore) -> None:
    def ask() -> list[str]:
        with ComputeClient(live.url, live.secret, store=store) as client:
            modes = [
                client.chat_complete_for_personal_runtime(machine.runtime, ASK).sealing,
                client.chat_complete_for_personal_runtime(machine.runtime, ASK, sealing="gateway").sealing,
            ]
            with client.chat_stream_for_personal_runtime(machine.runtime, ASK, sealing="gateway") as stream:
                assert "".join(delta.text for delta in stream) == "four"
            assert client.embeddings(f"lattice:personal:{machine.runtime}", "x").vectors == [[0.5]]
            return [*modes, stream.sealing]

    assert await asyncio.to_thread(ask) == ["end_to_end", "gateway", "gateway"]


async def test_openais_sdk_seals_in_one_line(live: LiveGateway, machine: Machine, store: KeyStore) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    model = f"lattice:personal:{machine.runtime}"
    http = httpx2.AsyncClient(transport=AsyncSealedTransport(store))
    async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=live.secret, http_client=http) as sdk:
        stream = await sdk.chat.completions.create(model=model, messages=ASK, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]) == "four"
        assert stream.response.headers["x-lattice-sealing"] == "end_to_end"
        assert stream.response.extensions["lattice"].receipt.verified
        whole = json.loads(whole_answer())
        whole["choices"][0]["message"] = message
        machine.engine.whole = json.dumps(whole).encode()
        answer = await sdk.chat.completions.create(model=model, messages=ASK, tools=tools)
        assert answer.choices[0].message.tool_calls[0].model_dump() == call
        assert machine.engine.asked[-1]["tools"] == tools
        machine.engine.refusal = b'{"error": {"message": "too long", "type": "invalid_request_error", "code": null}}'
        with pytest.raises(openai.BadRequestError, match="too long"):
            await sdk.chat.completions.create(model=model, messages=ASK)


async def test_nothing_readable_passes_the_gateway(
    client: AsyncComputeClient, machine: Machine, live: LiveGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[bytes] = []
    dispatch = live.gateway.hub.dispatch

    def spy(link: Any, work: Any) -> None:
        passed.append(work.envelope)
        dispatch(link, work)

    monkeypatch.setattr(live.gateway.hub, "dispatch", spy)
    await client.chat_complete_for_personal_runtime(machine.runtime, ASK)
    (envelope,) = passed
    assert b"canary" not in envelope
    folder = live.gateway.settings.data_dir
    assert not [path for path in folder.iterdir() if path.is_file() and b"canary" in path.read_bytes()]


async def test_another_app_is_unverified_and_then_not_allowed_until_the_owner_says_so(
    live: LiveGateway, machine: Machine
) -> None:
    other = memory_key_store()
    async with AsyncComputeClient(live.url, live.secret, store=other) as client:
        with pytest.raises(LatticeError) as caught:
            await client.chat_complete_for_personal_runtime(machine.runtime, ASK)
        assert caught.value.code == "runtime_unverified"
        words = (await client.get_personal_runtime(machine.runtime)).words
        assert words is not None
        await client.confirm_fingerprint(machine.runtime, words)
        with pytest.raises(LatticeError) as caught:
            await client.chat_complete_for_personal_runtime(machine.runtime, ASK)
        assert caught.value.code == "sender_not_allowed"
        AllowList(machine.state).add(other.sender().public.text, "other", "app", 1)
        assert (await client.chat_complete_for_personal_runtime(machine.runtime, ASK)).text == "four"


async def test_a_machine_that_another_one_pretends_to_be(
    client: AsyncComputeClient, machine: Machine, tmp_path: Path
) -> None:
    """A string that was minted elsewhere brings another identity: not the one that this app pinned."""
    await client.verify_pairing(machine.runtime)
    status, minted = await machine.live.call("POST", f"/v1/personal-runtimes/{machine.runtime}/bootstrap-tokens", {})
    assert status == 201
    impostor = Machine(tmp_path / "impostor", machine.live)
    await impostor.connect(minted["token"])
    with pytest.raises(LatticeError) as caught:
        await client.chat_complete("lattice:personal:" + machine.runtime, ASK)
    assert caught.value.code in ("runtime_identity_changed", "runtime_unreachable")
    with pytest.raises(LatticeError) as caught:
        await client.get_personal_runtime(machine.runtime)
    assert caught.value.code == "runtime_identity_changed"


async def test_errors_of_the_real_gateway_are_typed(client: AsyncComputeClient, live: LiveGateway) -> None:
    made = await client.create_personal_runtime("never paired")
    with pytest.raises(LatticeError) as caught:
        await client.chat_complete_for_personal_runtime(made.id, ASK, sealing="gateway")
    assert caught.value.code == "runtime_unreachable"
    async with AsyncComputeClient(live.url, "sk_lat_wrong", store=memory_key_store()) as stranger:
        with pytest.raises(LatticeError) as caught:
            await stranger.list_personal_runtimes()
        assert caught.value.code == "invalid_credential"
    assert (await client.revoke_personal_runtime(made.id)).state == "revoked"


async def test_a_client_whose_clock_is_a_day_ahead_is_told_about_the_key(
    live: LiveGateway, machine: Machine, store: KeyStore
) -> None:
    clock = ManualClock(SystemClock().now_ms() + 25 * HOUR_MS)
    async with AsyncComputeClient(live.url, live.secret, store=store, clock=clock) as client:
        with pytest.raises(LatticeError) as caught:
            await client.chat_complete_for_personal_runtime(machine.runtime, ASK)
    assert caught.value.code == "work_key_expired"


async def test_leaving_a_stream_stops_the_machine(client: AsyncComputeClient, machine: Machine) -> None:
    machine.engine.stuck = True
    async with await client.chat_stream_for_personal_runtime(machine.runtime, ASK) as stream:
        assert (await anext(stream)).text == "fo"
    async with asyncio.timeout(1):
        while not machine.engine.streams[-1].closed:
            await asyncio.sleep(0.01)
    assert stream.receipt is None


async def test_localhost_is_the_same_gateway_as_127_0_0_1(
    live: LiveGateway, machine: Machine, store: KeyStore, tmp_path: Path
) -> None:
    async with AsyncComputeClient(live.url.replace("127.0.0.1", "localhost"), live.secret, store=store) as client:
        assert (await client.chat_complete_for_personal_runtime(machine.runtime, ASK)).text == "four"
        second = await client.create_personal_runtime("second")
        await Machine(tmp_path / "second", live).connect(await client.bootstrap_personal_runtime(second.id))
        assert (await client.verify_pairing(second.id)).trust == "verified"


async def test_keys_and_ledger_through_the_sdk(live: LiveGateway, store: KeyStore) -> None:
    def manage() -> None:
        with ManagementClient(live.url, live.secret, store=store) as client:
            made = client.create_key("app", spend_cap_micro=5)
            assert made["id"] in [key["id"] for key in client.list_keys(limit=1)]
            with ComputeClient(live.url, made["secret"], store=store) as app:
                assert app.key()["spend_cap_micro"] == 5
                assert isinstance(app.models(), list)
            assert client.revoke_key(made["id"])["revoked_at_ms"]
            account = client.credits()["account"]
            grant = client.grant_credits(account, 7, "welcome", idempotency_key="one")
            assert client.grant_credits(account, 7, "welcome", idempotency_key="one") == grant
            assert client.credits()["available_micro"] == 7
            entries = list(client.ledger_entries(limit=1))
            assert [entry["amount_micro"] for entry in entries if entry["kind"] == "grant"]
            assert list(client.ledger_entries(work="work_" + "0" * 26)) == []
            other = client.create_account("other")
            assert other["id"] in [row["id"] for row in client.list_accounts()]

    await asyncio.to_thread(manage)


async def test_a_gateway_that_is_gone_is_unreachable(tmp_path: Path, store: KeyStore) -> None:
    async with running_gateway(tmp_path / "short") as live:
        client = AsyncComputeClient(live.url, live.secret, store=store, max_retries=0)
        assert await client.list_personal_runtimes() == []
    async with client:
        with pytest.raises(LatticeError) as caught:
            await client.list_personal_runtimes()
    assert caught.value.code == "gateway_unreachable"
