"""Idempotency keys: one request, one effect, one answer, also after a lost connection."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from lattice.core.chat import Usage
from tests.callers import CHAT, QUESTION, counter, ended, hosted, require_at_rest, require_uncharged, sdk, usage_rows
from tests.harness import MODEL, LiveGateway, ScriptedRuntime, whole_answer

NAMED = "lattice:" + MODEL


async def ask(live: LiveGateway, model: str, name: str = "k1", **body: Any) -> tuple[int, Any, Any]:
    """One chat under an idempotency key: status, headers, body."""
    headers = {"authorization": f"Bearer {live.secret}", "idempotency-key": name}
    sent = {"model": model, "messages": QUESTION, **body}
    async with live.http.post(live.url + CHAT, json=sent, headers=headers) as response:
        return response.status, response.headers, await response.read()


def code(body: bytes) -> str:
    return str(msgspec.json.decode(body)["error"]["code"])


async def test_a_repeat_gets_the_same_answer_and_runs_nothing(live: LiveGateway) -> None:
    runtime = await hosted(live)
    asking = asyncio.create_task(ask(live, NAMED))
    await runtime.serve_one(answer=whole_answer("first"))
    status, _, body = await asking
    again = await ask(live, NAMED)
    assert (again[0], again[2]) == (status, body)
    assert again[1]["x-lattice-replayed"] == "true"
    assert len(await usage_rows(live)) == 1
    assert await counter(live, "lattice_works_dispatched_total") == 1
    await require_at_rest(live)


async def test_a_repeat_works_while_the_machine_is_offline(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """The reply is kept, encrypted under the credential that asked; the machine is not needed for it."""
    await runtime.connect()
    asking = asyncio.create_task(ask(live, runtime.model))
    await runtime.serve_one(answer=whole_answer("kept"))
    _, _, body = await asking
    live.gateway.hub.links[runtime.runtime].draining = True
    assert (await ask(live, runtime.model, "another"))[0] == 409
    assert (await ask(live, runtime.model))[2] == body


async def test_another_request_under_the_same_key_is_a_conflict(live: LiveGateway) -> None:
    runtime = await hosted(live)
    asking = asyncio.create_task(ask(live, NAMED))
    await runtime.serve_one()
    await asking
    status, headers, body = await ask(live, NAMED, temperature=0.5)
    assert (status, code(body), headers["x-should-retry"]) == (409, "idempotency_conflict", "false")


async def test_a_repeat_while_the_first_runs_waits(live: LiveGateway) -> None:
    runtime = await hosted(live)
    first = asyncio.create_task(ask(live, NAMED))
    opened = runtime.open(await runtime.take())
    status, headers, body = await ask(live, NAMED)
    assert (status, code(body)) == (409, "idempotency_in_flight")
    assert (headers["x-should-retry"], headers["retry-after"]) == ("true", "1")
    assert code((await ask(live, NAMED, temperature=0.5))[2]) == "idempotency_conflict"
    await runtime.frames(opened.final(whole_answer(), Usage(12, 3)))
    assert (await first)[0] == 200
    assert await counter(live, "lattice_works_dispatched_total") == 1


async def test_a_streamed_answer_is_not_kept(live: LiveGateway) -> None:
    """The repeat is told so instead of being charged for a second answer."""
    runtime = await hosted(live)
    asking = asyncio.create_task(ask(live, NAMED, stream=True))
    await runtime.serve_one()
    assert (await asking)[0] == 200
    status, headers, body = await ask(live, NAMED, stream=True)
    assert (status, code(body)) == (409, "idempotency_result_unavailable")
    assert headers["x-should-retry"] == "false"
    assert len(await usage_rows(live)) == 1


async def test_a_request_that_failed_can_be_repeated(live: LiveGateway) -> None:
    """It had no effect, so its key is free."""
    runtime = await hosted(live)
    asking = asyncio.create_task(ask(live, NAMED))
    await runtime.fail(await runtime.take(), "engine_unavailable")
    assert (await asking)[0] == 503
    await require_uncharged(live)
    asking = asyncio.create_task(ask(live, NAMED))
    await runtime.serve_one()
    assert (await asking)[0] == 200


async def test_a_refused_admission_leaves_the_key_free(live: LiveGateway) -> None:
    runtime = await hosted(live, credits=0)
    assert (await ask(live, NAMED))[0] == 402
    status, _ = await live.call("POST", "/v1/credits/grants", {"account": await _account(live), "amount_micro": 10**6})
    assert status == 201
    asking = asyncio.create_task(ask(live, NAMED))
    await runtime.serve_one()
    assert (await asking)[0] == 200


async def test_keys_of_two_credentials_do_not_meet(live: LiveGateway) -> None:
    """The same name under another developer key is another request, and cannot read the first one's answer."""
    runtime = await hosted(live)
    asking = asyncio.create_task(ask(live, NAMED))
    await runtime.serve_one(answer=whole_answer("mine"))
    await asking
    other = await live.new_key()
    headers = {"idempotency-key": "k1"}
    body = {"model": NAMED, "messages": QUESTION}
    second = asyncio.create_task(live.call("POST", CHAT, body, key=other, headers=headers))
    await runtime.serve_one(answer=whole_answer("other"))
    assert (await second)[1]["choices"][0]["message"]["content"] == "other"


@pytest.mark.parametrize("name", ["", "x" * 256, "a\tb"])
async def test_a_key_of_the_wrong_form(live: LiveGateway, runtime: ScriptedRuntime, name: str) -> None:
    await runtime.connect()
    status, _, body = await ask(live, runtime.model, name)
    assert (status, code(body)) == (400, "invalid_request")


async def test_a_caller_that_left_can_repeat_its_request(live: LiveGateway) -> None:
    """It got nothing and paid nothing; the repeat runs."""
    runtime = await hosted(live)
    leaving = asyncio.create_task(ask(live, NAMED))
    await runtime.take()
    leaving.cancel()
    await ended(live)
    asking = asyncio.create_task(ask(live, NAMED))
    await runtime.serve_one()
    assert (await asking)[0] == 200
    assert len(await usage_rows(live)) == 1


async def test_openai_s_sdk_sends_its_own_key(live: LiveGateway) -> None:
    """`extra_headers` is all that an unmodified client needs."""
    runtime = await hosted(live)
    async with sdk(live) as client:

        async def create() -> str | None:
            extra = {"idempotency-key": "from the sdk"}
            answer = await client.chat.completions.create(model=NAMED, messages=QUESTION, extra_headers=extra)
            return answer.choices[0].message.content

        asking = asyncio.create_task(create())
        await runtime.serve_one(answer=whole_answer("once"))
        assert [await asking, await create()] == ["once", "once"]
    assert len(await usage_rows(live)) == 1


async def _account(live: LiveGateway) -> str:
    return str((await live.call("GET", "/v1/account"))[1]["id"])
