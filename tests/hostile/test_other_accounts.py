"""Another account's runtime does not exist: not to chat with, to read, to pair or to revoke."""

from __future__ import annotations

import asyncio

import pytest

from lattice.core.chat import Usage
from lattice.sealing.stream import MEDIA_ENVELOPE
from tests.callers import CHAT, SealedCaller, counter, hosted, new_account
from tests.harness import LiveGateway, ScriptedRuntime

_USAGE = Usage(1, 1)


async def codes(live: LiveGateway, runtime: ScriptedRuntime, key: str) -> dict[str, tuple[int, str]]:
    """What every operation on a runtime answers."""
    item = f"/v1/personal-runtimes/{runtime.runtime}"
    calls = {
        "read": ("GET", item, None),
        "revoke": ("DELETE", item, None),
        "bootstrap": ("POST", f"{item}/bootstrap-tokens", {}),
        "confirm": ("POST", f"{item}/fingerprint-confirmations", {"fingerprint": runtime.identity.public.words}),
    }
    answers = {}
    for name, (method, path, body) in calls.items():
        status, answer = await live.call(method, path, body, key=key)
        answers[name] = (status, answer["error"])
    status, answer = await live.chat(runtime.model, key=key)
    answers["chat"] = (status, answer["error"]["code"])
    return answers


async def test_a_stranger_is_told_nothing(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """The same answer as for a runtime that does not exist, with every scope, reachable or not."""
    await runtime.connect()
    _, key = await new_account(live)
    assert set((await codes(live, runtime, key)).values()) == {(404, "personal_lattice_not_found")}
    runtime.runtime = "lat_" + "0" * 26
    assert set((await codes(live, runtime, key)).values()) == {(404, "personal_lattice_not_found")}
    assert await counter(live, "lattice_works_dispatched_total") == 0


async def test_a_stranger_does_not_see_it_in_any_list(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    await runtime.connect()
    _, key = await new_account(live)
    assert (await live.call("GET", "/v1/personal-runtimes", key=key))[1]["data"] == []
    models = (await live.call("GET", "/v1/models", key=key))[1]["data"]
    assert [model["id"] for model in models if "personal" in model["id"]] == []


async def test_a_stranger_cannot_seal_to_it(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Knowing its key config, for instance from a leak, opens nothing."""
    await runtime.connect()
    _, key = await new_account(live)
    caller = SealedCaller(live, runtime)
    reply = await caller.chat(caller.seal(), key)
    assert (reply.status, reply.code) == (404, "personal_lattice_not_found")
    assert await counter(live, "lattice_works_dispatched_total") == 0


async def test_a_stranger_s_runtime_cannot_answer_somebody_else_s_work(live: LiveGateway) -> None:
    """Frames, failures and renewals count only for the runtime that holds the lease."""
    owner = await ScriptedRuntime(live).pair()
    await owner.connect()
    _, key = await new_account(live)
    stranger = await ScriptedRuntime(live).pair(key)
    await stranger.connect()
    asking = asyncio.create_task(live.chat(owner.model))
    work = await owner.take()
    opened = owner.open(work)
    frame = opened.final(b"{}", _USAGE)
    assert (await stranger.frames(frame)).lost
    assert (await stranger.fail(work, "runtime_failed")).lost
    assert (await stranger.renew(work)).lost
    assert not (await owner.frames(frame)).lost
    assert (await asking)[0] == 200


async def test_another_account_cannot_take_a_work_id(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """A work id is chosen by the caller who seals. Somebody else's is a conflict and tells nothing of it."""
    await runtime.connect()
    _, key = await new_account(live)
    other = await ScriptedRuntime(live).pair(key)
    await other.connect()
    mine, theirs = SealedCaller(live, runtime), SealedCaller(live, other)
    first = mine.seal()
    asking = asyncio.create_task(mine.chat(first))
    work = await runtime.take()
    copied = theirs.seal(work_id=work.work_id)
    assert (await theirs.chat(copied, key)).code == "idempotency_conflict"
    await runtime.frames(runtime.open(work).final(b"", _USAGE))
    assert (await asking).code is None
    assert (await theirs.chat(copied, key)).code == "idempotency_conflict"


async def test_a_hosted_runtime_cannot_be_named(live: LiveGateway) -> None:
    """The operator's machines are reached through the catalogue, with its prices, and not by their ids."""
    runtime = await hosted(live)
    status, body = await live.chat(runtime.model)
    assert (status, body["error"]["code"]) == (404, "personal_lattice_not_found")
    caller = SealedCaller(live, runtime)
    assert (await caller.chat(caller.seal())).code == "personal_lattice_not_found"


async def test_hosted_and_personal_records_do_not_mix(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    assert (await live.call("GET", f"/v1/hosted-runtimes/{runtime.runtime}"))[0] == 404
    assert (await live.call("DELETE", f"/v1/hosted-runtimes/{runtime.runtime}"))[0] == 404


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
async def test_a_sealed_body_for_another_route_is_refused(
    live: LiveGateway, runtime: ScriptedRuntime, path: str
) -> None:
    """The header's task is signed; the route cannot turn a chat into embeddings."""
    await runtime.connect()
    caller = SealedCaller(live, runtime)
    task = "embeddings" if path == CHAT else "chat"
    sealed = caller.seal(task=task, stream=False).envelope.encode()
    headers = {"authorization": f"Bearer {live.secret}", "content-type": MEDIA_ENVELOPE}
    async with live.http.post(live.url + path, data=sealed, headers=headers) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "envelope_invalid")
