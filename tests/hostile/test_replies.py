"""A sealed reply that was replayed, reordered, cut, re-headed, miscounted or wrongly vouched for, in both modes.

The caller hears `reply_invalid` or `receipt_invalid`, nobody is charged, and no money stays on hold. All attacks are
made on one gateway, so that what one leaves behind would show in the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.callers import (
    QUESTION,
    SealedCaller,
    balance,
    counter,
    hosted,
    require_at_rest,
    require_uncharged,
    work_row,
)
from tests.harness import LiveGateway, ScriptedRuntime, running_gateway
from tests.hostile.attacks import RECEIPT_INVALID, REPLY_INVALID, vouched_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODES = dict.fromkeys(REPLY_INVALID, "reply_invalid") | dict.fromkeys(RECEIPT_INVALID, "receipt_invalid")
ATTACKS = REPLY_INVALID | RECEIPT_INVALID
MODEL = "lattice:smollm2-135m-instruct"

UNENDED = "not_ended"
"""Whoever cannot open the frames waits for the rest of this reply, as it should."""


class Stage(NamedTuple):
    """A gateway, a paid machine that lies, and a caller's own one that does."""

    live: LiveGateway
    paid: ScriptedRuntime
    own: ScriptedRuntime


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as live:
        paid = await hosted(live)
        own = await ScriptedRuntime(live).pair()
        await own.connect()
        yield Stage(live, paid, own)


async def answer_with(runtime: ScriptedRuntime, attack: str) -> str:
    """Take one work, post the attack in one request; the work's id."""
    work = await runtime.take()
    await runtime.frames(*ATTACKS[attack](runtime.open(work)))
    return work.work_id


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_plain_stream_ends_in_the_error_and_is_free(stage: Stage, attack: str) -> None:
    """Even what was delivered before the lie is free: the machine that lied is not paid."""
    live = stage.live
    before = await balance(live)
    lying = asyncio.create_task(answer_with(stage.paid, attack))
    headers = {"authorization": f"Bearer {live.secret}"}
    body = {"model": MODEL, "messages": QUESTION, "stream": True}
    async with live.http.post(f"{live.url}/v1/chat/completions", json=body, headers=headers) as answer:
        text = await answer.text()
    assert "[DONE]" not in text
    assert f'"code":"{CODES[attack]}"' in text
    row = await work_row(live, await lying)
    assert (row.state, row.reason) == ("failed", CODES[attack])
    assert await balance(live) == before
    await require_uncharged(live)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_plain_whole_answer_is_withheld_and_free(stage: Stage, attack: str) -> None:
    lying = asyncio.create_task(answer_with(stage.paid, attack))
    status, body = await stage.live.chat(MODEL)
    assert (status, body["error"]["code"]) == (502, CODES[attack])
    assert "choices" not in body
    await lying
    await require_uncharged(stage.live)


@pytest.mark.parametrize("attack", sorted(set(ATTACKS) - {UNENDED}))
async def test_an_end_to_end_caller_is_never_fooled(stage: Stage, attack: str) -> None:
    """Either the gateway sees that the receipt does not cover the frames, or the caller cannot open them."""
    caller = SealedCaller(stage.live, stage.own)
    lying = asyncio.create_task(answer_with(stage.own, attack))
    reply = await caller.chat(caller.seal())
    await lying
    assert reply.code in ("reply_invalid", "receipt_invalid")
    if CODES[attack] == "receipt_invalid":
        assert reply.code == "receipt_invalid"
    await require_at_rest(stage.live)
    assert await counter(stage.live, "lattice_charged_micro_total") == 0


@pytest.mark.parametrize("attack", sorted(set(REPLY_INVALID) - {UNENDED}))
async def test_a_runtime_that_vouches_for_its_lie_fools_no_end_to_end_caller(stage: Stage, attack: str) -> None:
    """The gateway cannot see into the frames, and the receipt covers them; the caller still opens nothing false."""
    caller = SealedCaller(stage.live, stage.own)
    asking = asyncio.create_task(caller.chat(caller.seal()))
    opened = stage.own.open(await stage.own.take())
    await stage.own.frames(*vouched_for(opened, ATTACKS[attack](opened)))
    assert (await asking).code in ("reply_invalid", "receipt_invalid")
    await require_at_rest(stage.live)
    assert await counter(stage.live, "lattice_charged_micro_total") == 0
