"""The openai engine against a real server: everything passes through, and cancelling reaches the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web

from lattice.core.errors import LatticeError
from lattice.core.relay import ModelOffer
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.engines.openai import OpenAIEngine
from tests.unit.runtime.servers import TOOL_CALL, ModelServer

BODY = {"model": "llama3.2", "messages": [{"role": "user", "content": "hi"}]}


@contextlib.asynccontextmanager
async def running(server: ModelServer, **options: object) -> AsyncIterator[OpenAIEngine]:
    async with server.run() as url:
        engine = OpenAIEngine(url, **options)  # type: ignore[arg-type]
        await engine.start()
        try:
            yield engine
        finally:
            await engine.stop()


async def collect(reply: EngineReply) -> bytes:
    assert reply.events is not None
    try:
        return b"".join([b"".join(batch) async for batch in reply.events])
    finally:
        await reply.events.aclose()


async def test_models_are_sorted_into_chat_and_embeddings() -> None:
    async with running(ModelServer()) as engine:
        offers = await engine.offers()
    assert [(o.id, o.tasks, o.tools) for o in offers] == [
        ("llama3.2", ("chat",), True),
        ("nomic-embed-text", ("embeddings",), False),
    ]


async def test_the_default_goes_first_and_declared_models_are_not_asked_for() -> None:
    server = ModelServer()
    server.models = ["a", "b"]
    async with running(server, default="b") as engine:
        assert [o.id for o in await engine.offers()] == ["b", "a"]
    declared = (ModelOffer("only"),)
    assert await OpenAIEngine("http://127.0.0.1:1", declared=declared).offers() == declared


async def test_tools_and_unknown_members_pass_through_unchanged() -> None:
    server = ModelServer()
    body = {**BODY, "tools": [{"type": "function"}], "x_vendor": {"a": [1, None]}, "seed": 7}
    async with running(server, api_key="secret") as engine:
        reply = await engine.chat(dict(body), stream=False)
    assert server.bodies == [body]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    answer = msgspec.json.decode(reply.body)
    assert answer["choices"][0]["message"]["tool_calls"] == [TOOL_CALL]
    assert answer["vendor_extra"] == {"kept": 1.0}


async def test_a_stream_arrives_as_whole_events() -> None:
    async with running(ModelServer()) as engine:
        reply = await engine.chat({**BODY, "stream": True}, stream=True)
        data = await collect(reply)
    assert data.count(b"data: ") == data.count(b"\n\n")
    assert data.endswith(b"data: [DONE]\n\n")


async def test_embeddings() -> None:
    async with running(ModelServer()) as engine:
        reply = await engine.embeddings({"model": "e", "input": "x"})
    assert msgspec.json.decode(reply.body)["data"][0]["embedding"] == [0.25, -1.5]


async def test_cancelling_before_the_first_byte_reaches_the_server() -> None:
    server = ModelServer()
    server.slow = True
    async with running(server) as engine:
        task = asyncio.create_task(engine.chat(dict(BODY), stream=False))
        while not server.bodies:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(server.cancelled.wait(), 0.25)


async def test_closing_a_stream_reaches_the_server() -> None:
    server = ModelServer()
    server.slow = True

    async def first_then_hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[]}\n\n')
        await server._hang()
        return response

    server.answer = first_then_hang
    async with running(server) as engine:
        reply = await engine.chat({**BODY, "stream": True}, stream=True)
        assert reply.events is not None
        await anext(reply.events)  # type: ignore[call-overload]
        await reply.events.aclose()
        await asyncio.wait_for(server.cancelled.wait(), 0.25)


async def test_an_unread_stream_closes_too() -> None:
    server = ModelServer()

    async def hang(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await server._hang()
        return response

    server.answer = hang
    async with running(server) as engine:
        reply = await engine.chat({**BODY, "stream": True}, stream=True)
        assert reply.events is not None
        await reply.events.aclose()
        await asyncio.wait_for(server.cancelled.wait(), 0.25)


async def test_a_server_that_breaks_off_is_runtime_failed() -> None:
    server = ModelServer()
    server.breaks_off = True
    async with running(server) as engine:
        reply = await engine.chat({**BODY, "stream": True}, stream=True)
        with pytest.raises(LatticeError) as caught:
            await collect(reply)
    assert caught.value.code == "runtime_failed"


async def test_no_server_and_a_wrong_key_are_engine_unavailable() -> None:
    engine = OpenAIEngine("http://127.0.0.1:1/v1")
    with pytest.raises(LatticeError, match="not started"):
        await engine.chat(dict(BODY), stream=False)
    await engine.start()
    for call in (engine.offers(), engine.chat(dict(BODY), stream=False)):
        with pytest.raises(LatticeError) as caught:
            await call
        assert caught.value.code == "engine_unavailable"
    await engine.stop()
    server = ModelServer()
    server.key = "right"
    async with running(server, api_key="canary") as engine:
        with pytest.raises(LatticeError) as caught:
            await engine.offers()
        assert caught.value.code == "engine_unavailable"
        assert "canary" not in caught.value.message


async def test_a_server_that_is_no_model_server() -> None:
    server = ModelServer()
    async with server.run() as url:
        engine = OpenAIEngine(url.removesuffix("/v1"))
        await engine.start()
        with pytest.raises(LatticeError, match="HTTP 404"):
            await engine.offers()
        await engine.stop()


async def test_a_refusal_is_handed_on_with_its_status() -> None:
    server = ModelServer()

    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "context too long"}}, status=400)

    server.answer = refuse
    async with running(server) as engine:
        reply = await engine.chat({**BODY, "stream": True}, stream=True)
    assert reply.status == 400
    assert b"context too long" in reply.body
