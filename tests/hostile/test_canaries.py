"""A canary prompt, a canary answer and canary secrets, sent down every path: they appear in no log, no database file,
no metric and no error, of either process, at the most talkative log level."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web

from lattice.core.relay import RELAY_MEDIA_TYPE
from lattice.runtime.machine import load_pairing
from lattice.sealing.pairing import new_pairing_secret
from tests.callers import CHAT, error_code, fund, streaming
from tests.engines import PacedServer
from tests.harness import MODEL, REDEMPTIONS, GatewayClient
from tests.processes import DaemonProcess, GatewayProcess, daemon_process, gateway_process

pytestmark = pytest.mark.slow

PROMPT = "canary-prompt-7d1f0c"
ANSWER = "canary-answer-5b9e2a"
NAME = "canary-idempotency-3c8d"


class Scene(NamedTuple):
    """Both processes, and every word that may not leak, by what it is."""

    gateway: GatewayProcess
    daemon: DaemonProcess
    engine: PacedServer
    canaries: dict[str, str]

    @property
    def client(self) -> GatewayClient:
        """The owner's."""
        return self.gateway.client


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    engine = PacedServer()
    engine.answer = _echo(engine)
    async with (
        engine.run() as url,
        gateway_process(tmp_path, log_level="debug", keep_alive_seconds="0.2") as gateway,
        daemon_process(gateway, url) as daemon,
    ):
        await fund(gateway.client, 1_000_000)
        pairing = load_pairing(daemon.state)
        assert pairing is not None
        canaries = {
            "prompt": PROMPT,
            "answer": ANSWER,
            "idempotency key": NAME,
            "owner's key": gateway.client.secret.removeprefix("sk_lat_"),
            "runtime credential": pairing.credential.removeprefix("rlc_"),
            "developer key": (await gateway.client.new_key()).removeprefix("sk_lat_"),
        }
        yield Scene(gateway, daemon, engine, canaries)


def _echo(engine: PacedServer) -> Any:
    """Answers with a canary; what a request asks for in `x_fault` goes wrong, quoting the prompt."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = engine.bodies[-1]
        fault = body.get("x_fault")
        if fault:
            return web.json_response({"error": {"message": f"cannot do {body['messages']}"}}, status=fault)
        if body.get("stream"):
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            choices = [{"index": 0, "delta": {"content": ANSWER}, "finish_reason": None}]
            await response.write(b"data: " + json.dumps({**base, "choices": choices}).encode() + b"\n\n")
            if body.get("x_cut"):
                return response
            choices = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
            await response.write(
                b"data: " + json.dumps({**base, "choices": choices}).encode() + b"\n\ndata: [DONE]\n\n"
            )
            return response
        message = {"role": "assistant", "content": ANSWER}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        return web.json_response({"id": "c", "model": body["model"], "choices": choices, "usage": usage})

    return answer


MESSAGES = [{"role": "user", "content": PROMPT}]


async def _chat(scene: Scene, *, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any]:
    sent = {"model": scene.daemon.model, "messages": MESSAGES, **body}
    return await scene.client.call("POST", CHAT, sent, headers=headers)


async def _succeed(scene: Scene) -> None:
    """Whole, streamed, kept for a repeat, replayed; the answers do carry the canary."""
    status, body = await _chat(scene, headers={"idempotency-key": NAME})
    assert (status, body["choices"][0]["message"]["content"]) == (200, ANSWER)
    assert (await _chat(scene, headers={"idempotency-key": NAME}))[1] == body
    async with streaming(scene.client, scene.daemon.model, messages=MESSAGES) as stream:
        assert ANSWER.encode() in b"".join(await stream.rest())


async def _fail(scene: Scene) -> list[Any]:
    """Everything that goes wrong; the bodies of the errors that the gateway itself words."""
    client, model = scene.client, scene.daemon.model
    secret = client.secret
    errors: list[Any] = [
        (await _chat(scene, x_fault=500))[1],
        (await _chat(scene, x_fault=503))[1],
        (await _chat(scene, x_fault=401))[1],
        (await _chat(scene, model=f"lattice:{PROMPT}"))[1],
        (await _chat(scene, model=f"{model}:{PROMPT}"))[1],
        (await _chat(scene, model="lattice:" + MODEL))[1],
        (await _chat(scene, max_tokens=PROMPT))[1],
        (await _chat(scene, stream=PROMPT))[1],
        (await _chat(scene, headers={"x-lattice-sealing": PROMPT}))[1],
        (await _chat(scene, headers={"idempotency-key": NAME}, temperature=1))[1],
        (await client.call("POST", CHAT, {"model": model}, key=secret + "x"))[1],
        (await client.call("POST", "/v1/api-keys", {"name": "n", "scopes": [PROMPT]}))[1],
        (await client.call("POST", "/v1/credits/grants", {"account": PROMPT, "amount_micro": PROMPT}))[1],
        (await client.call("POST", REDEMPTIONS, {"token": PROMPT, "identity_key": PROMPT}, key=""))[1],
        (await client.call("GET", f"/v1/models/{PROMPT}"))[1],
        (await client.call("GET", f"/v1/key?key={secret}&prompt={PROMPT}", key=""))[1],
        (await client.call("GET", f"/v1/{secret}", key=""))[1],
    ]
    whole_key = {"authorization": f"Bearer {secret}"}
    for data in (b'{"model":"' + PROMPT.encode(), PROMPT.encode(), b"\xff" + PROMPT.encode()):
        async with client.http.post(client.url + CHAT, data=data, headers=whole_key) as response:
            errors.append(await response.json())
    sealed = {**whole_key, "content-type": "application/vnd.lattice.sealed-work"}
    async with client.http.post(client.url + CHAT, data=PROMPT.encode() * 9, headers=sealed) as response:
        errors.append(await response.json())
    pairing = load_pairing(scene.daemon.state)
    assert pairing is not None
    relay = {"authorization": f"Bearer {pairing.credential}", "content-type": RELAY_MEDIA_TYPE}
    async with client.http.post(client.url + "/v1/relay/frames", data=PROMPT.encode(), headers=relay) as response:
        errors.append(await response.json())
    async with streaming(client, model, messages=MESSAGES, x_cut=True) as stream:
        events = await stream.rest()
        assert error_code(events[-1]) == "runtime_failed"
        errors.append(events[-1].decode())
    return errors


async def _leak_a_bootstrap_secret(scene: Scene) -> None:
    """A careless tool sends the whole string, to the token route and to a wrong one."""
    made = (await scene.client.call("POST", "/v1/personal-runtimes", {}))[1]
    path = f"/v1/personal-runtimes/{made['id']}/bootstrap-tokens"
    token, secret = (await scene.client.call("POST", path, {}))[1]["token"], new_pairing_secret()
    scene.canaries.update({"bootstrap token": token.removeprefix("lbt_"), "pairing secret": secret})
    body = {"token": f"{token}.{secret}", "identity_key": "x"}
    for path in (REDEMPTIONS, "/v1/nothing", f"/v1/{token}.{secret}"):
        status, answer = await scene.client.call("POST", path, body, key="")
        assert status >= 400
        assert secret not in str(answer)


async def _disconnect(scene: Scene) -> None:
    async with asyncio.timeout(10), streaming(scene.client, scene.daemon.model, messages=MESSAGES) as stream:
        await stream.next()


def _found(canaries: dict[str, str], where: dict[str, bytes]) -> list[str]:
    return [
        f"the {what} is in {place}"
        for place, data in where.items()
        for what, canary in canaries.items()
        if canary.encode() in data
    ]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_canaries_do_not_leak(scene: Scene) -> None:
    await _succeed(scene)
    errors = await _fail(scene)
    await _leak_a_bootstrap_secret(scene)
    await _disconnect(scene)
    async with scene.client.http.get(scene.client.url + "/metrics") as response:
        metrics = await response.read()
    async with scene.client.http.get(scene.client.url + "/openapi.json") as response:
        description = await response.read()
    seen = {
        "the metrics": metrics,
        "the API's description": description,
        **{f"error {number}": json.dumps(error).encode() for number, error in enumerate(errors)},
    }
    assert _found(scene.canaries, seen) == []

    running = _files(scene.gateway.data)
    assert {"lattice.db", "lattice.db-wal"} <= set(running)
    assert _found(scene.canaries, running) == []

    assert await scene.gateway.terminate() == 0
    assert await scene.daemon.terminate() == 0
    at_rest = _files(scene.gateway.data)
    assert b"work_" in at_rest["lattice.db"]  # the checkpoint brought it all there
    assert _found(scene.canaries, at_rest) == []

    logs = {child.name: child.log.read_bytes() for child in (scene.gateway, scene.daemon)}
    assert b'"route": "/v1/chat/completions"' in logs["gateway"]  # at this level each request leaves a line
    assert len(logs["machine"]) > 100
    assert _found(scene.canaries, logs) == []

    machine = _files(scene.daemon.state.root)
    own = {what: canary for what, canary in scene.canaries.items() if what != "runtime credential"}
    assert _found(own, machine) == []


async def test_what_the_database_holds_cannot_be_used(scene: Scene) -> None:
    """Stolen rows open no door: not a key's hash, and not the 12 characters of it that a list shows."""
    data = b"".join(_files(scene.gateway.data).values())
    prefix = scene.client.secret[:12]
    assert prefix.encode() in data
    for stolen in (prefix, prefix + "A" * 36):
        assert (await scene.client.call("GET", "/v1/key", key=stolen))[0] == 401
    for path in scene.gateway.data.iterdir():
        assert path.stat().st_mode & 0o077 == 0, f"others may read {path.name}"
    assert scene.gateway.data.stat().st_mode & 0o077 == 0
