"""Sealed work that is sent twice, changed, from somebody unknown, or to a key that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lattice.core.chat import Usage
from lattice.core.clock import DAY_MS, HOUR_MS, ManualClock
from lattice.core.errors import LatticeError
from lattice.core.ids import unb64url
from lattice.sealing.envelope import Envelope, SealedRequest
from lattice.sealing.key_config import SignedKeyConfig, verify_key_config
from tests.callers import (
    SealedCaller,
    SealedReply,
    counter,
    require_at_rest,
    require_uncharged,
    usage_rows,
    work_row,
)
from tests.harness import LiveGateway, ScriptedRuntime, event, running_gateway
from tests.hostile.attacks import honest


async def answered(caller: SealedCaller, sealed: SealedRequest) -> SealedReply:
    """Ask and let the runtime answer."""
    asking = asyncio.create_task(caller.chat(sealed))
    await caller.runtime.serve_one()
    return await asking


@pytest.fixture
async def caller(live: LiveGateway, runtime: ScriptedRuntime) -> SealedCaller:
    await runtime.connect()
    return SealedCaller(live, runtime)


async def test_an_end_to_end_answer_is_verified(live: LiveGateway, caller: SealedCaller) -> None:
    """What the refusals below are measured against."""
    reply = await answered(caller, caller.seal())
    assert (reply.code, reply.status) == (None, 200)
    assert reply.payload == event("fo") + event("ur") + event("", "stop")
    assert reply.headers["x-lattice-sealing"] == "end_to_end"
    assert reply.receipt is not None
    assert reply.receipt.usage == Usage(12, 3)
    (row,) = await usage_rows(live)
    assert (row["sealing"], row["work"], row["charged_micro"]) == ("end_to_end", reply.receipt.work_id, 0)


# --- twice, or changed -----------------------------------------------------------------------------------------------


async def test_the_same_envelope_while_it_runs(live: LiveGateway, caller: SealedCaller) -> None:
    """The first goes on undisturbed; the second is told to wait."""
    sealed = caller.seal()
    first = asyncio.create_task(caller.chat(sealed))
    opened = caller.runtime.open(await caller.runtime.take())
    status, headers, body = await caller.post(sealed.envelope.encode())
    assert (status, msgspec.json.decode(body)["error"]["code"]) == (409, "idempotency_in_flight")
    assert (headers["x-should-retry"], headers["retry-after"]) == ("true", "1")
    await caller.runtime.frames(*honest(opened))
    assert (await first).code is None
    assert await counter(live, "lattice_works_dispatched_total") == 1


async def test_the_same_envelope_after_its_answer(live: LiveGateway, caller: SealedCaller) -> None:
    """Whoever recorded it cannot have it run, and metered, again."""
    sealed = caller.seal()
    assert (await answered(caller, sealed)).code is None
    reply = await caller.chat(sealed)
    assert (reply.status, reply.code) == (409, "idempotency_result_unavailable")
    assert len(await usage_rows(live)) == 1
    assert await counter(live, "lattice_works_dispatched_total") == 1


async def test_the_same_envelope_after_a_failure_runs_again(live: LiveGateway, caller: SealedCaller) -> None:
    """Nothing was delivered, so resending identical bytes is the safe retry that the SDK makes."""
    sealed = caller.seal()
    asking = asyncio.create_task(caller.chat(sealed))
    await caller.runtime.fail(await caller.runtime.take(), "engine_unavailable")
    assert (await asking).code == "engine_unavailable"
    reply = await answered(caller, sealed)
    assert reply.code is None
    assert reply.receipt is not None
    assert reply.receipt.attempt == 2


@pytest.mark.parametrize("when", ["in flight", "answered"])
async def test_the_same_header_with_another_body(live: LiveGateway, caller: SealedCaller, when: str) -> None:
    """A header, and with it a work id, stands for one body; another one under it is a conflict, never a second run."""
    first = caller.seal({"messages": ["first"]})
    other = caller.seal({"messages": ["other"]}, work_id=first.envelope.parsed.work_id)
    asking = asyncio.create_task(caller.chat(first))
    opened = caller.runtime.open(await caller.runtime.take())
    if when == "answered":
        await caller.runtime.frames(*honest(opened))
        assert (await asking).code is None
    reply = await caller.chat(other)
    assert (reply.status, reply.code) == (409, "idempotency_conflict")
    if when == "in flight":
        await caller.runtime.frames(*honest(opened))
        assert (await asking).code is None
    assert await counter(live, "lattice_works_dispatched_total") == 1


async def test_a_body_swapped_under_a_signed_header_opens_nowhere(live: LiveGateway, caller: SealedCaller) -> None:
    """The gateway, or a thief of the envelope, puts another body under the header: the sender's signature is broken."""
    mine, other = caller.seal({"messages": ["mine"]}).envelope, caller.seal({"messages": ["other"]}).envelope
    forged = Envelope(mine.header, mine.enc, mine.wrapped_key, other.frames, mine.signature)
    asking = asyncio.create_task(caller.post(forged.encode()))
    work = await caller.runtime.take()
    with pytest.raises(LatticeError, match="envelope_invalid"):
        caller.runtime.open(work)
    await caller.runtime.fail(work, "envelope_invalid")
    status, _, body = await asking
    assert (status, msgspec.json.decode(body)["error"]["code"]) == (400, "envelope_invalid")
    await require_uncharged(live)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" * len(data),
        lambda data: b"\0\0\0\2{}" + data,
        lambda data: b"\0\0\x0f\xff" + b"[" * 4095 + data,
        lambda data: msgspec.json.encode({"model": "m", "messages": []}),
    ],
)
async def test_what_is_no_envelope_is_refused_before_anything_happens(
    live: LiveGateway, caller: SealedCaller, spoil: Any
) -> None:
    status, _, body = await caller.post(spoil(caller.seal().envelope.encode()))
    assert (status, msgspec.json.decode(body)["error"]["code"]) == (400, "envelope_invalid")
    assert await counter(live, "lattice_works_dispatched_total") == 0


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ({"model": "lattice:smollm2-135m-instruct"}, "sealing_mode_unavailable"),
        ({"model": "lattice:personal:lat_" + "0" * 26}, "envelope_invalid"),
        ({"task": "embeddings"}, "envelope_invalid"),
        ({"work_id": "work_short"}, "envelope_invalid"),
        ({"work_id": "req_" + "0" * 26}, "envelope_invalid"),
    ],
)
async def test_a_header_that_does_not_fit_the_request(
    live: LiveGateway, caller: SealedCaller, override: dict[str, Any], code: str
) -> None:
    reply = await caller.chat(caller.seal(**override))
    assert reply.code == code
    assert await counter(live, "lattice_works_dispatched_total") == 0


async def test_a_demanded_mode_is_never_downgraded(live: LiveGateway, caller: SealedCaller) -> None:
    """Nor answered in another one: a caller that demands end to end and forgot to seal is refused."""
    asked = {"x-lattice-sealing": "end_to_end"}
    status, body = await live.call("POST", "/v1/chat/completions", {"model": caller.runtime.model}, headers=asked)
    assert (status, body["error"]["code"]) == (422, "sealing_mode_unavailable")
    sealed = caller.seal().envelope.encode()
    status, _, answer = await caller.post(sealed, **{"x-lattice-sealing": "gateway"})
    assert (status, msgspec.json.decode(answer)["error"]["code"]) == (422, "sealing_mode_unavailable")
    status, _, answer = await caller.post(sealed, **{"x-lattice-sealing": "none"})
    assert (status, msgspec.json.decode(answer)["error"]["code"]) == (400, "invalid_request")
    assert await counter(live, "lattice_works_dispatched_total") == 0


# --- the machine refuses ---------------------------------------------------------------------------------------------


async def test_a_sender_that_is_not_on_the_allow_list(live: LiveGateway, caller: SealedCaller) -> None:
    """The machine does not open the work; the caller gets 403 and nothing is metered."""
    asking = asyncio.create_task(caller.chat(caller.seal()))
    work = await caller.runtime.take()
    await caller.runtime.fail(work, "sender_not_allowed", "a text of the daemon's that must not travel")
    reply = await asking
    assert (reply.status, reply.code) == (403, "sender_not_allowed")
    assert "must not travel" not in str(reply.error)
    assert (await work_row(live, work.work_id)).state == "failed"
    await require_uncharged(live)


async def test_a_code_that_a_machine_may_not_use_becomes_runtime_failed(
    live: LiveGateway, caller: SealedCaller
) -> None:
    """A machine must not be able to say in the gateway's name that a key was revoked or credits are gone."""
    for code in ("invalid_credential", "credits_exhausted", "internal", "no such code", ""):
        asking = asyncio.create_task(caller.chat(caller.seal()))
        await caller.runtime.fail(await caller.runtime.take(), code)
        reply = await asking
        assert (reply.status, reply.code) == (502, "runtime_failed")
    await require_uncharged(live)


async def test_a_full_machine_says_when_to_come_back(live: LiveGateway, caller: SealedCaller) -> None:
    """The daemon's own queue is full: 429 with Retry-After, as when the gateway's is."""
    asking = asyncio.create_task(caller.post(caller.seal().envelope.encode()))
    await caller.runtime.fail(await caller.runtime.take(), "queue_full")
    status, headers, _ = await asking
    assert (status, headers["retry-after"], headers["x-should-retry"]) == (429, "2", "true")


async def test_work_sealed_to_a_key_that_is_gone(live: LiveGateway, caller: SealedCaller) -> None:
    """The machine rotated its key: 422 with the new key config in the body, which the caller verifies and seals to."""
    stale = caller.seal()
    caller.runtime.new_key_config(caller.runtime.runtime)
    await caller.runtime.poll_once(announce=True)
    asking = asyncio.create_task(caller.chat(stale))
    await caller.runtime.fail(await caller.runtime.take(), "work_key_expired")
    reply = await asking
    assert (reply.status, reply.code) == (422, "work_key_expired")
    signed = SignedKeyConfig.decode(unb64url(reply.error["key_config"]))
    config = verify_key_config(signed, caller.runtime.identity.public, caller.runtime.runtime)
    assert config == caller.config
    await require_uncharged(live)
    assert (await answered(caller, caller.seal(config=config))).code is None


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def timed(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SealedCaller]:
    """A caller and a runtime whose clock the test moves."""
    async with running_gateway(tmp_path / "timed", clock=clock) as live:
        runtime = await ScriptedRuntime(live).pair()
        await runtime.connect()
        yield SealedCaller(live, runtime)


async def test_expired_work_is_refused(timed: SealedCaller, clock: ManualClock) -> None:
    sealed = timed.seal(life_ms=HOUR_MS)
    clock.advance(HOUR_MS)
    timed.runtime.new_session()
    await timed.runtime.connect()
    reply = await timed.chat(sealed)
    assert (reply.status, reply.code) == (422, "envelope_expired")
    await require_uncharged(timed.live)


async def test_a_machine_asleep_for_25_hours(timed: SealedCaller, clock: ManualClock) -> None:
    """Its key configs have expired. Plain callers and end-to-end ones are refused unbilled until it announces a new
    one, and then both are answered."""
    live, runtime = timed.live, timed.runtime
    before = timed.seal(life_ms=DAY_MS * 2)
    clock.advance(25 * HOUR_MS)
    assert (await live.chat(runtime.model))[1]["error"]["code"] == "runtime_unreachable"
    runtime.new_session()
    await runtime.connect()  # awake, and still with the old key config
    status, body = await live.chat(runtime.model)
    assert (status, body["error"]["code"]) == (422, "work_key_expired")
    reply = await timed.chat(before)
    assert (reply.status, reply.code) == (422, "work_key_expired")
    runtime.new_key_config(runtime.runtime)
    await runtime.poll_once(announce=True)
    asking = asyncio.create_task(timed.chat(before))
    await runtime.fail(await runtime.take(), "work_key_expired")
    reply = await asking
    assert (reply.status, reply.code) == (422, "work_key_expired")
    assert unb64url(reply.error["key_config"]) == runtime.key_config
    await require_uncharged(live)
    assert (await answered(timed, timed.seal())).code is None
    plain = asyncio.create_task(live.chat(runtime.model))
    await runtime.serve_one()
    assert (await plain)[0] == 200
    await require_at_rest(live)


async def test_a_work_id_of_the_past_is_still_a_work_id(timed: SealedCaller, clock: ManualClock) -> None:
    """Replay protection does not end with the envelope's life: the row stays."""
    sealed = timed.seal(life_ms=DAY_MS)
    assert (await answered(timed, sealed)).code is None
    clock.advance(HOUR_MS)
    timed.runtime.new_session()
    await timed.runtime.connect()
    assert (await timed.chat(sealed)).code == "idempotency_result_unavailable"
