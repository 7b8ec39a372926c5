"""Chat through a real gateway, a real relay and real sealing, with OpenAI's own SDK where a client matters."""

from __future__ import annotations

import asyncio

import openai

from lattice.core.chat import Usage
from tests.harness import LiveGateway, ScriptedRuntime, whole_answer


async def background(runtime: ScriptedRuntime, **kwargs: object) -> asyncio.Task[None]:
    await runtime.connect()
    return asyncio.create_task(runtime.serve_forever(**kwargs))


def sdk(live: LiveGateway, **kwargs: object) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key=live.secret, **kwargs)


async def test_an_unmodified_sdk_gets_an_answer(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    serving = await background(runtime)
    async with sdk(live) as client:
        answer = await client.chat.completions.create(
            model=runtime.model, messages=[{"role": "user", "content": "2+2"}]
        )
    serving.cancel()
    assert answer.choices[0].message.content == "four"
    assert answer.usage.total_tokens == 15


async def test_an_unmodified_sdk_streams(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    serving = await background(runtime)
    async with sdk(live) as client:
        stream = await client.chat.completions.create(
            model=runtime.model, messages=[{"role": "user", "content": "2+2"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
    serving.cancel()
    assert text == "four"


async def test_answers_say_where_they_came_from(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    serving = await background(runtime)
    async with sdk(live) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=runtime.model, messages=[{"role": "user", "content": "2+2"}], max_tokens=7
        )
    serving.cancel()
    assert raw.headers["x-lattice-runtime"] == runtime.runtime
    assert raw.headers["x-lattice-sealing"] == "gateway"
    assert raw.headers["x-lattice-max-output-tokens"] == "7"
    assert raw.headers["x-request-id"].startswith("req_")
    assert float(raw.headers["x-lattice-gateway-ms"]) >= 0


async def test_own_machine_work_is_metered_at_zero(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    serving = await background(runtime, usage=Usage(100, 50))
    status, _ = await live.chat(runtime.model)
    serving.cancel()
    assert status == 200
    _, usage = await live.call("GET", "/v1/usage")
    (row,) = usage["data"]
    assert (row["prompt_tokens"], row["completion_tokens"], row["charged_micro"]) == (100, 50, 0)


async def test_the_body_arrives_byte_for_byte(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Unknown members pass through: nothing is dropped silently."""
    await runtime.connect()
    sent = b'{"model": "%b", "messages": [], "unheard_of": {"deep": [1, 2.50]}}' % runtime.model.encode()
    headers = {"authorization": f"Bearer {live.secret}"}
    call = asyncio.create_task(live.http.post(f"{live.url}/v1/chat/completions", data=sent, headers=headers))
    opened = runtime.open(await runtime.take())
    await runtime.frames(opened.final(whole_answer(), Usage(1, 1)))
    assert (await call).status == 200
    assert opened.body == sent
