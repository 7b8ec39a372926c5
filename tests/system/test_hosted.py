"""Hosted capacity: paid with credits, least-loaded, and never somebody's own machine."""

from __future__ import annotations

import asyncio

import openai
import pytest

from lattice.core.chat import Usage
from lattice.core.relay import ModelOffer
from tests.callers import (
    QUESTION,
    balance,
    counter,
    fund,
    hosted,
    new_account,
    require_at_rest,
    require_uncharged,
    sdk,
    usage_rows,
)
from tests.harness import MODEL, LiveGateway, ScriptedRuntime, whole_answer

NAMED = "lattice:" + MODEL


async def test_an_answer_is_charged_to_the_micro_credit(live: LiveGateway) -> None:
    """12 input and 3 output tokens at 0.02 and 0.06 micro-credits, each rounded up; hold, settle and usage agree."""
    runtime = await hosted(live, credits=1_000)
    asking = asyncio.create_task(live.chat(NAMED, max_tokens=100))
    opened = runtime.open(await runtime.take())
    available, held = await balance(live)
    assert available + held == 1_000
    assert held > 0
    await runtime.frames(opened.final(whole_answer(), Usage(12, 3)))
    assert (await asking)[0] == 200
    (row,) = await usage_rows(live)
    assert row["charged_micro"] == 2
    assert await balance(live) == (998, 0)
    entries = (await live.call("GET", f"/v1/ledger/entries?work={row['work']}"))[1]["data"]
    assert {entry["kind"] for entry in entries} == {"hold", "settle"}
    assert sum(entry["amount_micro"] for entry in entries) == 0
    assert await counter(live, "lattice_charged_micro_total") == 2
    await require_at_rest(live)


async def test_without_credits_hosted_work_is_refused_and_one_s_own_machine_still_answers(live: LiveGateway) -> None:
    """The refusal has OpenAI's shape, so that its SDKs show what they show for OpenAI's own quota."""
    await hosted(live, credits=0)
    own = await ScriptedRuntime(live).pair()
    await own.connect()
    async with sdk(live) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model=NAMED, messages=QUESTION)
        assert (caught.value.status_code, caught.value.code) == (402, "credits_exhausted")
        assert caught.value.type == "insufficient_quota"
        assert caught.value.response.headers["x-should-retry"] == "false"
        serving = asyncio.create_task(own.serve_one())
        answer = await client.chat.completions.create(model=own.model, messages=QUESTION)
        await serving
    assert answer.choices[0].message.content == "four"
    assert await counter(live, "lattice_works_dispatched_total") == 1
    assert [row["charged_micro"] for row in await usage_rows(live)] == [0]
    assert await balance(live) == (0, 0)


async def test_credits_are_held_before_they_are_spent(live: LiveGateway) -> None:
    """Parallel requests cannot spend the same credit."""
    runtime = await hosted(live, credits=0)
    await fund(live, 50)
    first = asyncio.create_task(live.chat(NAMED, max_tokens=500))
    opened = runtime.open(await runtime.take())
    status, body = await live.chat(NAMED, max_tokens=500)
    assert (status, body["error"]["code"]) == (402, "credits_exhausted")
    await runtime.frames(opened.final(whole_answer(), Usage(12, 3)))
    assert (await first)[0] == 200
    second = asyncio.create_task(live.chat(NAMED, max_tokens=500))
    await runtime.serve_one()
    assert (await second)[0] == 200


async def test_a_personal_machine_never_serves_the_catalogue(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Though it is reachable, idle, and offers the very model; and it is not even named as a candidate."""
    await fund(live, 1_000_000)
    await runtime.connect()
    polling = await runtime.hold_poll()
    status, body = await live.chat(NAMED)
    assert (status, body["error"]["code"], body["error"]["candidates"]) == (422, "no_runtime_meets_policy", [])
    live.gateway.hub.links[runtime.runtime].wake()
    assert (await polling).works == ()
    assert await counter(live, "lattice_works_dispatched_total") == 0
    await require_uncharged(live)


async def test_a_refusal_gives_a_reason_per_candidate(live: LiveGateway) -> None:
    await fund(live, 1_000_000)
    other = ScriptedRuntime(live, "hosted")
    other.offers = (ModelOffer("something-else"), ModelOffer(MODEL, ("embeddings",)))
    await other.pair()
    await other.connect()
    offline = await hosted(live)
    live.gateway.hub.links[offline.runtime].draining = True
    status, body = await live.chat(NAMED)
    assert (status, body["error"]["code"]) == (422, "no_runtime_meets_policy")
    reasons = {candidate["runtime"]: candidate["reason"] for candidate in body["error"]["candidates"]}
    assert reasons == {other.runtime: "does not offer this model for this task", offline.runtime: "offline"}


async def test_a_model_without_a_price_is_not_served(live: LiveGateway) -> None:
    """A hosted machine cannot put a model into the catalogue by offering it."""
    runtime = ScriptedRuntime(live, "hosted")
    runtime.offers = (ModelOffer("unpriced"),)
    await runtime.pair()
    await runtime.connect()
    status, body = await live.chat("lattice:unpriced")
    assert (status, body["error"]["code"]) == (404, "model_not_found")


async def test_work_goes_to_the_least_loaded_machine(live: LiveGateway) -> None:
    """Load is works per slot, so a machine with more slots takes more."""
    small, large = ScriptedRuntime(live, "hosted"), ScriptedRuntime(live, "hosted")
    small.concurrency, large.concurrency = 1, 3
    await fund(live, 1_000_000)
    for machine in (small, large):
        await machine.pair()
        await machine.connect()
    links = live.gateway.hub.links
    asking = []
    for number in range(4):
        asking.append(asyncio.create_task(live.chat(NAMED)))
        while len(live.gateway.hub.works) <= number:
            await asyncio.sleep(0.002)
    assert {len(links[small.runtime].leased), len(links[large.runtime].leased)} == {1, 3}
    assert len(links[large.runtime].leased) == 3
    serving = [asyncio.create_task(_serve(machine)) for machine in (small, large)]
    assert [(await call)[0] for call in asking] == [200] * 4
    for task in serving:
        task.cancel()
    await require_at_rest(live)


async def _serve(runtime: ScriptedRuntime) -> None:
    while True:
        for work in (await runtime.poll()).works:
            await runtime.frames(runtime.open(work).final(whole_answer(), Usage(12, 3)))


async def test_the_default_ceiling_is_the_catalogue_s_and_is_reported(live: LiveGateway) -> None:
    """What bounds the hold is enforced at the machine and told to the caller."""
    runtime = await hosted(live)
    async with sdk(live) as client:
        asking = asyncio.create_task(client.chat.completions.with_raw_response.create(model=NAMED, messages=QUESTION))
        opened = runtime.open(await runtime.take())
        assert opened.header.max_output_tokens == 512
        await runtime.frames(opened.final(whole_answer(), Usage(12, 3)))
        assert (await asking).headers["x-lattice-max-output-tokens"] == "512"


async def test_a_hosted_machine_does_not_learn_who_asks(live: LiveGateway) -> None:
    """The envelope names the gateway as the sender; no account, key or address goes with the work."""
    runtime = await hosted(live)
    account, key = await new_account(live)
    await fund(live, 1_000_000, account)
    asking = asyncio.create_task(live.chat(NAMED, key=key))
    work = await runtime.take()
    opened = runtime.open(work)
    assert opened.header.sender == runtime.gateway_key.text
    assert account.encode() not in work.envelope
    assert key.encode() not in work.envelope
    assert key.encode() not in opened.body
    await runtime.frames(opened.final(whole_answer(), Usage(12, 3)))
    assert (await asking)[0] == 200


async def test_an_engine_s_refusal_passes_through_unbilled(live: LiveGateway) -> None:
    """A 4xx of the model server is the caller's to see, with its status and body; nothing is charged."""
    runtime = await hosted(live)
    asking = asyncio.create_task(live.chat(NAMED))
    opened = runtime.open(await runtime.take())
    refusal = b'{"error":{"message":"context length exceeded","type":"invalid_request_error","param":null,"code":null}}'
    await runtime.frames(opened.final(refusal, Usage(), status=400))
    status, body = await asking
    assert (status, body["error"]["message"]) == (400, "context length exceeded")
    await require_uncharged(live)
