"""Streams: silent up to the first token or the keep-alive, errors as events, and `[DONE]` only after a whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from lattice.core.chat import Usage
from tests.callers import (
    QUESTION,
    EventReader,
    SealedCaller,
    error_code,
    require_at_rest,
    sdk,
    streaming,
    usage_rows,
)
from tests.harness import LiveGateway, ScriptedRuntime, event, running_gateway

KEEP_ALIVE = b": keep-alive\n"
DONE = b"data: [DONE]\n"


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    """A gateway that says it is alive after a fifth of a second."""
    async with running_gateway(tmp_path / "gateway", keep_alive_seconds=0.2) as running:
        yield running


@pytest.fixture
async def runtime(live: LiveGateway) -> ScriptedRuntime:
    made = await ScriptedRuntime(live).pair()
    await made.connect()
    return made


async def test_nothing_comes_before_the_first_token(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """So that a failure before it is still an HTTP status that SDKs understand and may retry."""
    async with sdk(live, max_retries=0) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model=runtime.model, messages=QUESTION, stream=True)
        )
        await runtime.fail(await runtime.take(), "engine_unavailable")
        with pytest.raises(openai.InternalServerError) as caught:
            await asking
    assert (caught.value.status_code, caught.value.code) == (503, "engine_unavailable")
    assert caught.value.response.headers["content-type"] == "application/json"


async def test_silence_becomes_a_comment(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """It keeps proxies from giving up, and says nothing that a client could take for an answer."""
    async with streaming(live, runtime.model) as stream:
        opened = runtime.open(await runtime.take())
        assert await stream.next() == KEEP_ALIVE
        assert (await stream.begun()).headers["content-type"] == "text/event-stream"
        await runtime.frames(opened.frame(event("fo"), 1))
        assert await _next_event(stream) == event("fo")[:-1]
        assert await stream.next() == KEEP_ALIVE
        await runtime.frames(opened.final(event("ur", "stop"), Usage(12, 2)))
        rest = [item for item in await stream.rest() if item != KEEP_ALIVE]
    assert rest == [event("ur", "stop")[:-1], DONE]


async def test_openai_s_sdk_reads_over_the_comments(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    async with sdk(live) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model=runtime.model, messages=QUESTION, stream=True)
        )
        opened = runtime.open(await runtime.take())
        stream = await asking  # the headers come with the first comment
        await runtime.frames(opened.final(event("four", "stop"), Usage(12, 1)))
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "four"


@pytest.mark.parametrize("code", ["runtime_failed", "engine_unavailable", "work_key_expired"])
async def test_an_error_after_the_first_token_is_an_event_without_done(
    live: LiveGateway, runtime: ScriptedRuntime, code: str
) -> None:
    async with streaming(live, runtime.model) as stream:
        opened = runtime.open(await runtime.take())
        await runtime.frames(opened.frame(event("fo"), 1))
        assert await stream.next() == event("fo")[:-1]
        await runtime.fail(opened.work, code)
        rest = [item for item in await stream.rest() if item != KEEP_ALIVE]
    assert [error_code(item) for item in rest] == [code]
    (row,) = await usage_rows(live)
    assert row["completion_tokens"] == 1
    await require_at_rest(live)


async def test_an_error_after_a_comment_is_an_event_too(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """The status line is out already, though nothing of an answer is; it costs nothing."""
    async with streaming(live, runtime.model) as stream:
        work = await runtime.take()
        assert await stream.next() == KEEP_ALIVE
        await runtime.fail(work, "engine_unavailable")
        rest = [item for item in await stream.rest() if item != KEEP_ALIVE]
    assert [error_code(item) for item in rest] == ["engine_unavailable"]
    assert not await usage_rows(live)


async def test_openai_s_sdk_raises_on_an_error_event(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """An answer that was cut off must not look like one that ended."""
    async with sdk(live) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model=runtime.model, messages=QUESTION, stream=True)
        )
        opened = runtime.open(await runtime.take())
        await runtime.frames(opened.frame(event("fo"), 1))
        stream = await asking
        await runtime.fail(opened.work, "runtime_failed")
        with pytest.raises(openai.APIError, match="could not finish"):
            _ = [chunk async for chunk in stream]


async def test_an_engine_s_refusal_of_a_stream_is_a_plain_answer(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    async with sdk(live) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model=runtime.model, messages=QUESTION, stream=True)
        )
        opened = runtime.open(await runtime.take())
        refusal = b'{"error":{"message":"no such parameter","type":"invalid_request_error","param":null,"code":null}}'
        await runtime.frames(opened.final(refusal, Usage(), status=400))
        with pytest.raises(openai.BadRequestError, match="no such parameter"):
            await asking
    assert not await usage_rows(live)


async def test_an_end_to_end_stream_keeps_alive_too(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    caller = SealedCaller(live, runtime)
    asking = asyncio.create_task(caller.chat(caller.seal()))
    opened = runtime.open(await runtime.take())
    await asyncio.sleep(0.5)  # the silence is what is tested
    await runtime.frames(opened.final(event("four", "stop"), Usage(12, 1)))
    reply = await asking
    assert (reply.code, reply.keep_alives > 0) == (None, True)


async def test_an_end_to_end_error_after_the_start_is_a_record(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    caller = SealedCaller(live, runtime)
    asking = asyncio.create_task(caller.chat(caller.seal()))
    opened = runtime.open(await runtime.take())
    await runtime.frames(opened.frame(event("fo"), 1))
    await runtime.fail(opened.work, "runtime_failed")
    reply = await asking
    assert (reply.status, reply.code) == (200, "runtime_failed")
    assert reply.error["request_id"].startswith("req_")


async def _next_event(stream: EventReader) -> bytes | None:
    while (item := await stream.next()) == KEEP_ALIVE:
        pass
    return item
