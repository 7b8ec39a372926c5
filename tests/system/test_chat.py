"""Chat through a real gateway, a real relay and real sealing, with OpenAI's own SDK where a client matters."""

from __future__ import annotations

import asyncio

from lattice.core.chat import Usage
from lattice.core.relay import MAX_RELAY_BODY
from tests.callers import hosted, require_at_rest, sdk, usage_rows
from tests.harness import MODEL, LiveGateway, ScriptedRuntime, whole_answer


async def background(runtime: ScriptedRuntime, **kwargs: object) -> asyncio.Task[None]:
    await runtime.connect()
    return asyncio.create_task(runtime.serve_forever(**kwargs))


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


async def test_embeddings_cost_their_input_alone(live: LiveGateway) -> None:
    runtime = await hosted(live)
    async with sdk(live) as client:
        asking = asyncio.create_task(
            client.embeddings.create(model="lattice:" + MODEL, input="two words", encoding_format="float")
        )
        opened = runtime.open(await runtime.take())
        assert (opened.header.task, opened.header.stream, opened.header.max_output_tokens) == ("embeddings", False, 0)
        answer = b'{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":[0.5]}]}'
        await runtime.frames(opened.final(answer, Usage(100, 0)))
        assert (await asking).data[0].embedding == [0.5]
    (row,) = await usage_rows(live)
    assert (row["task"], row["prompt_tokens"], row["completion_tokens"], row["charged_micro"]) == (
        "embeddings",
        100,
        0,
        2,
    )
    await require_at_rest(live)


async def test_an_answer_larger_than_what_may_run_ahead(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Nine megabytes in one frame, as many embeddings come, are not a caller that reads too slowly."""
    await runtime.connect()
    asking = asyncio.create_task(live.chat(runtime.model))
    opened = runtime.open(await runtime.take())
    await runtime.frames(opened.final(whole_answer("x" * 9_000_000), Usage(1, 1)))
    status, body = await asking
    assert (status, len(body["choices"][0]["message"]["content"])) == (200, 9_000_000)


async def test_large_requests_reach_a_machine_one_batch_after_another(
    live: LiveGateway, runtime: ScriptedRuntime
) -> None:
    """Three questions of twelve megabytes are more than a daemon reads in one reply."""
    await runtime.connect()
    asking = [asyncio.create_task(live.chat(runtime.model, padding="x" * 12_000_000)) for _ in range(3)]
    while len(live.gateway.hub.works) < 3:
        await asyncio.sleep(0.01)
    answered = 0
    while answered < 3:
        reply = await runtime.poll()
        assert sum(len(work.envelope) for work in reply.works) < MAX_RELAY_BODY
        for work in reply.works:
            answered += 1
            await runtime.frames(runtime.open(work).final(whole_answer(), Usage(1, 1)))
    assert [(await call)[0] for call in asking] == [200] * 3
