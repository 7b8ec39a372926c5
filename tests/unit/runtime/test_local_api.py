"""The loopback endpoint: OpenAI's routes, and nothing for web pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web

from lattice.core.relay import ModelOffer
from lattice.runtime.board import ModelBoard
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.engines.openai import OpenAIEngine
from lattice.runtime.local_api import LocalApi
from lattice.runtime.server import serving
from lattice.runtime.status import DaemonStatus, EngineStatus
from tests.unit.runtime.machines import MODEL, RUNTIME, FakeEngine
from tests.unit.runtime.servers import TOOL_CALL, ModelServer

MESSAGES: Any = [{"role": "user", "content": "hi"}]


class Local:
    def __init__(self, url: str, server: ModelServer) -> None:
        self.url = url
        self.server = server


@pytest.fixture
async def local() -> AsyncIterator[Local]:
    server = ModelServer()
    async with server.run() as base_url:
        engine = OpenAIEngine(base_url)
        await engine.start()
        board = ModelBoard()
        await board.refresh(engine)
        api = LocalApi(engine=engine, board=board, status=status, runtime=lambda: RUNTIME, token="right")
        async with serving(api.app(), "127.0.0.1", 0) as (host, port):
            yield Local(f"http://{host}:{port}", server)
        await engine.stop()


def status() -> DaemonStatus:
    return DaemonStatus("1", 1, 1, "/s", "words", "key", EngineStatus("fake", "ready"))


def client(local: Local) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{local.url}/v1", api_key="unused", max_retries=0)


async def test_openais_sdk_chats_streams_and_embeds(local: Local) -> None:
    sdk = client(local)
    assert [model.id async for model in sdk.models.list()] == ["llama3.2", "nomic-embed-text"]
    answer = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content == "hello"
    stream = await sdk.chat.completions.create(model="llama3.2", messages=MESSAGES, stream=True)
    text = "".join([(chunk.choices[0].delta.content or "") async for chunk in stream])
    assert text == "hello"
    vectors = await sdk.embeddings.create(model=MODEL, input="x", encoding_format="float")
    assert vectors.data[0].embedding == [0.25, -1.5]


async def test_tools_and_their_results_pass_through(local: Local) -> None:
    sdk = client(local)
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    first = await sdk.chat.completions.create(model=MODEL, messages=MESSAGES, tools=tools)
    call = first.choices[0].message.tool_calls
    assert call is not None
    assert call[0].model_dump() == TOOL_CALL
    followed: Any = [
        *MESSAGES,
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    second = await sdk.chat.completions.create(model=MODEL, messages=followed, tools=tools)
    assert second.choices[0].message.content == "It is sunny."
    assert local.server.bodies[0]["tools"] == tools
    assert local.server.bodies[1]["messages"] == followed


async def test_errors_have_openais_shape(local: Local) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client(local).chat.completions.create(model="other", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    async with aiohttp.ClientSession() as session, session.get(f"{local.url}/nothing") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"


async def test_a_caller_that_leaves_stops_the_engine(local: Local) -> None:
    local.server.slow = True
    async with aiohttp.ClientSession() as session:
        body = {"model": MODEL, "messages": MESSAGES}
        task = asyncio.create_task(session.post(f"{local.url}/v1/chat/completions", json=body).__aenter__())
        while not local.server.bodies:
            await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.wait_for(local.server.cancelled.wait(), 1)


async def test_a_caller_that_leaves_a_stream_stops_the_engine(local: Local) -> None:
    async def one_event_then_silence(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[]}\n\n')
        await local.server._hang()
        return response

    local.server.answer = one_event_then_silence
    async with aiohttp.ClientSession() as session:
        body = {"model": MODEL, "messages": MESSAGES, "stream": True}
        async with session.post(f"{local.url}/v1/chat/completions", json=body) as response:
            assert await response.content.readany() == b'data: {"choices":[]}\n\n'
    await asyncio.wait_for(local.server.cancelled.wait(), 1)


@pytest.mark.parametrize(
    ("headers", "status_code"),
    [
        ({"host": "evil.example"}, 400),
        ({"host": "127.0.0.1.evil.example"}, 400),
        ({"origin": "https://evil.example"}, 400),
        ({"origin": "null"}, 400),
        ({"origin": "http://localhost:3000"}, 200),
        ({"host": "localhost:99"}, 200),
        ({"content-type": "text/plain"}, 400),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
async def test_web_pages_are_kept_out(local: Local, headers: dict[str, str], status_code: int) -> None:
    body = b'{"model":"llama3.2","messages":[{"role":"user","content":"x"}]}'
    sent = {"content-type": "application/json", **headers}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{local.url}/v1/chat/completions", data=body, headers=sent) as response,
    ):
        assert response.status == status_code
    assert len(local.server.bodies) == (status_code == 200)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'{"messages":[]}'])
async def test_bad_bodies_are_refused(local: Local, body: bytes) -> None:
    async with (
        aiohttp.ClientSession(headers={"content-type": "application/json"}) as session,
        session.post(f"{local.url}/v1/chat/completions", data=body) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_request"


async def test_status_needs_the_token(local: Local) -> None:
    async with aiohttp.ClientSession() as session:
        for value, code in ((None, 401), ("Bearer wrong", 401), ("Bearer right", 200)):
            headers = {"authorization": value} if value else {}
            async with session.get(f"{local.url}/status", headers=headers) as response:
                assert response.status == code
        async with session.get(f"{local.url}/healthz") as response:
            assert await response.json() == {"status": "ok"}


async def test_a_broken_engine_is_explained() -> None:
    engine = FakeEngine()
    board = ModelBoard((ModelOffer("m"),))
    api = LocalApi(engine=engine, board=board, status=status, runtime=lambda: None, token="t")
    engine.reply = EngineReply(500, b"canary")
    async with serving(api.app(), "127.0.0.1", 0) as (host, port):
        sdk = openai.AsyncOpenAI(base_url=f"http://{host}:{port}/v1", api_key="x", max_retries=0)
        with pytest.raises(openai.InternalServerError) as caught:
            await sdk.chat.completions.create(model="m", messages=MESSAGES)
        assert caught.value.code == "engine_unavailable"
        assert "canary" not in str(caught.value)
        engine.reply = EngineReply(400, b'{"error":"too long"}')
        with pytest.raises(openai.BadRequestError, match="too long"):
            await sdk.chat.completions.create(model="m", messages=MESSAGES)
