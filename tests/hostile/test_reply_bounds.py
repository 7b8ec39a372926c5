"""What a reply may not do beyond its own frames: answer another question, go on after its end, or cost too much."""

from __future__ import annotations

import asyncio

import msgspec
import openai
import pytest

from lattice.core.chat import Usage
from tests.callers import (
    QUESTION,
    balance,
    counter,
    error_code,
    hosted,
    require_at_rest,
    require_uncharged,
    sdk,
    streaming,
    usage_rows,
)
from tests.harness import LiveGateway, event, whole_answer
from tests.hostile.attacks import altered, honest

MODEL = "lattice:smollm2-135m-instruct"


async def test_frames_of_one_answer_do_not_pass_in_another(live: LiveGateway) -> None:
    """A reply is bound to its question: the same machine cannot answer the second caller with the first one's."""
    runtime = await hosted(live)
    asking = [asyncio.create_task(live.chat(MODEL)) for _ in range(2)]
    works = []
    while len(works) < 2:
        works += (await runtime.poll()).works
    mine, other = (runtime.open(work) for work in works)
    genuine = mine.final(whole_answer("mine"), Usage(1, 1))
    forged = msgspec.structs.replace(other.final(whole_answer("other"), Usage(1, 1)), frame=genuine.frame)
    await runtime.frames(genuine, forged)
    assert sorted([(await call)[0] for call in asking]) == [200, 502]
    await require_at_rest(live)


async def test_openai_s_sdk_raises_and_does_not_ask_again(live: LiveGateway) -> None:
    """An invalid reply may be an attack in progress: `x-should-retry: false`."""
    runtime = await hosted(live)

    async def lie() -> None:
        await runtime.frames(*altered(runtime.open(await runtime.take())))

    lying = asyncio.create_task(lie())
    async with sdk(live) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model=MODEL, messages=QUESTION)
    await lying
    assert caught.value.code == "reply_invalid"
    assert await counter(live, "lattice_works_dispatched_total") == 1


async def test_frames_after_the_last_one_change_nothing(live: LiveGateway) -> None:
    """What a runtime appends after the final frame reaches nobody and is not counted."""
    runtime = await hosted(live)
    asking = asyncio.create_task(live.chat(MODEL))
    opened = runtime.open(await runtime.take())
    final = opened.final(whole_answer(), Usage(12, 3))
    await runtime.frames(final, msgspec.structs.replace(final, sequence=1, tokens=9_999))
    assert (await asking)[0] == 200
    assert [row["completion_tokens"] for row in await usage_rows(live)] == [3]


@pytest.mark.parametrize("status", [101, 204, 206, 304])
async def test_a_reply_cannot_choose_a_status_that_changes_the_framing(live: LiveGateway, status: int) -> None:
    """A 204 has no body, so its bytes would pass for the next answer on a connection that a proxy shares."""
    runtime = await hosted(live)
    smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    asking = asyncio.create_task(live.chat(MODEL))
    opened = runtime.open(await runtime.take())
    await runtime.frames(opened.final(smuggled, Usage(12, 3), status=status))
    got, body = await asking
    assert (got, body["error"]["code"]) == (502, "reply_invalid")
    await require_uncharged(live)


async def test_a_receipt_cannot_charge_more_than_was_held(live: LiveGateway) -> None:
    """A runtime that consistently lies about its usage takes at most what the caller agreed to hold."""
    runtime = await hosted(live, credits=1_000)
    asking = asyncio.create_task(live.chat(MODEL, max_tokens=1))
    opened = runtime.open(await runtime.take())
    held = (await balance(live))[1]
    await runtime.frames(opened.final(whole_answer(), Usage(10**9, 10**9)))
    assert (await asking)[0] == 200
    assert await balance(live) == (1_000 - held, 0)
    await require_at_rest(live)


async def test_an_honest_reply_in_pieces_is_accepted_and_charged(live: LiveGateway) -> None:
    """The attacks fail for what they change, not because their reply is in three frames."""
    runtime = await hosted(live)
    async with streaming(live, MODEL) as stream:
        await runtime.frames(*honest(runtime.open(await runtime.take())))
        events = await stream.rest()
    assert events == [event("fo")[:-1], event("ur")[:-1], event("", "stop")[:-1], b"data: [DONE]\n"]
    assert not any(error_code(item) for item in events)
    assert await counter(live, "lattice_charged_micro_total") > 0
