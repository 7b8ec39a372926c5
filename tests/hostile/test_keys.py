"""A wrong, revoked, expired or under-scoped key; models, requests per minute and money that a key may not exceed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from lattice.core.clock import HOUR_MS, ManualClock
from tests.callers import CHAT, QUESTION, counter, fund, hosted, new_account, require_uncharged, sdk
from tests.harness import MODEL, LiveGateway, ScriptedRuntime, running_gateway

INFERENCE = "lattice:compute:inference"
READ_USAGE = "lattice:compute:usage:read"
WRONG = ["sk_lat_" + "A" * 43, "sk_lat_", "x", "sk-proj-somebody-elses", "sk_lat_" + "A" * 4000, "ключ"]


async def refused(live: LiveGateway, key: str, path: str = CHAT, method: str = "POST") -> tuple[int, str]:
    """Status and code of a call, in whichever shape the route answers."""
    body = {"model": "lattice:" + MODEL, "messages": QUESTION} if method == "POST" else None
    status, answer = await live.call(method, path, body, key=key)
    error = answer["error"]
    return status, error["code"] if isinstance(error, dict) else error


@pytest.mark.parametrize("key", WRONG)
async def test_a_wrong_key_is_refused_on_every_kind_of_route(live: LiveGateway, key: str) -> None:
    headers = {b"authorization": b"Bearer " + key.encode()}
    for method, path in (("POST", CHAT), ("POST", "/v1/embeddings"), ("GET", "/v1/models"), ("GET", "/v1/key")):
        sent = {name.decode(): value.decode("latin-1") for name, value in headers.items()}
        async with live.http.request(method, live.url + path, data=b"{}", headers=sent) as response:
            assert response.status == 401
            assert response.headers["x-should-retry"] == "false"
            assert "invalid_credential" in await response.text()


async def test_no_key_at_all_is_refused(live: LiveGateway) -> None:
    assert await refused(live, "") == (401, "invalid_credential")
    for header in ("Basic c2tfbGF0OnNrX2xhdA==", "Bearer", "Bearer ", ""):
        async with live.http.post(live.url + CHAT, data=b"{}", headers={"authorization": header}) as response:
            assert response.status == 401


async def test_either_header_carries_a_key(live: LiveGateway) -> None:
    async with live.http.get(live.url + "/v1/key", headers={"x-api-key": live.secret}) as response:
        assert response.status == 200


async def test_a_revoked_key_stops_at_once(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """Even though it was used, and cached, a moment ago."""
    await runtime.connect()
    serving = asyncio.create_task(runtime.serve_forever())
    key = await live.new_key()
    assert (await live.chat(runtime.model, key=key))[0] == 200
    key_id = (await live.call("GET", "/v1/key", key=key))[1]["id"]
    status, _ = await live.call("DELETE", f"/v1/api-keys/{key_id}")
    assert status == 200
    assert await refused(live, key) == (401, "revoked_grant")
    serving.cancel()
    assert await counter(live, "lattice_works_dispatched_total") == 1


async def test_an_expired_key_stops(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_gateway(tmp_path, clock=clock) as live:
        key = await live.new_key(expires_at_ms=clock.now_ms() + HOUR_MS)
        assert (await live.call("GET", "/v1/key", key=key))[0] == 200
        clock.advance(HOUR_MS)
        assert await refused(live, key, "/v1/key", "GET") == (401, "invalid_credential")
        assert await refused(live, key) == (401, "invalid_credential")


@pytest.mark.parametrize(
    ("scopes", "method", "path", "needs"),
    [
        ([READ_USAGE], "POST", CHAT, INFERENCE),
        ([READ_USAGE], "POST", "/v1/embeddings", INFERENCE),
        ([READ_USAGE], "GET", "/v1/models", INFERENCE),
        ([READ_USAGE], "GET", "/v1/personal-runtimes", INFERENCE),
        ([INFERENCE], "POST", "/v1/personal-runtimes", "lattice:compute:personal_runtime:manage"),
        ([INFERENCE], "POST", "/v1/hosted-runtimes", "lattice:admin"),
        ([INFERENCE], "GET", "/v1/hosted-runtimes", "lattice:admin"),
        ([INFERENCE], "GET", "/v1/api-keys", "lattice:keys:manage"),
        ([INFERENCE], "GET", "/v1/usage", READ_USAGE),
        ([INFERENCE], "GET", "/v1/credits", "lattice:credits:read"),
        ([INFERENCE], "GET", "/v1/ledger/entries", "lattice:credits:read"),
        ([INFERENCE], "GET", "/v1/accounts", "lattice:admin"),
    ],
)
async def test_an_under_scoped_key_is_told_what_it_lacks(
    live: LiveGateway, scopes: list[str], method: str, path: str, needs: str
) -> None:
    key = await live.new_key(scopes=scopes)
    status, body = await live.call(method, path, {} if method == "POST" else None, key=key)
    error = body["error"] if isinstance(body["error"], dict) else {"code": body["error"], **body}
    assert (status, error["code"]) == (403, "insufficient_scopes")
    assert needs in error["needs"]


async def test_a_key_is_limited_to_its_models(live: LiveGateway, runtime: ScriptedRuntime) -> None:
    """In both sealing modes the header or the body names the model, and either is judged before anything runs."""
    await runtime.connect()
    key = await live.new_key(allowed_models=["lattice:something-else"])
    assert await refused(live, key) == (403, "model_not_allowed")
    status, body = await live.chat(runtime.model, key=key)
    assert (status, body["error"]["code"]) == (403, "model_not_allowed")
    assert (await live.call("GET", "/v1/models", key=key))[1]["data"] == []
    assert await counter(live, "lattice_works_dispatched_total") == 0


async def test_an_allowed_model_works_in_either_spelling(live: LiveGateway) -> None:
    runtime = await hosted(live)
    serving = asyncio.create_task(runtime.serve_forever())
    key = await live.new_key(allowed_models=[MODEL])
    assert [(await live.chat(name, key=key))[0] for name in (MODEL, "lattice:" + MODEL)] == [200, 200]
    serving.cancel()


async def test_requests_per_minute_are_limited_with_a_time_to_come_back(live: LiveGateway) -> None:
    key = await live.new_key(requests_per_minute=2)
    for _ in range(2):
        assert (await live.call("GET", "/v1/key", key=key))[0] == 200
    async with live.http.post(live.url + CHAT, json={}, headers={"authorization": f"Bearer {key}"}) as response:
        body = await response.json()
        assert (response.status, body["error"]["code"]) == (429, "rate_limited")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert response.headers["x-should-retry"] == "true"
    assert (await live.call("GET", "/v1/key"))[0] == 200  # other keys are not slowed down


async def test_openai_s_sdk_raises_its_own_classes(live: LiveGateway) -> None:
    """An unmodified application sees what it already handles."""
    key = await live.new_key(scopes=[READ_USAGE])
    for secret, expected in (("sk_lat_wrong", openai.AuthenticationError), (key, openai.PermissionDeniedError)):
        async with sdk(live, api_key=secret) as client:
            with pytest.raises(expected):
                await client.chat.completions.create(model=MODEL, messages=QUESTION)


async def test_the_spend_cap_of_a_key_is_a_cap(live: LiveGateway) -> None:
    """Holds count, so that parallel requests cannot pass it together."""
    runtime = await hosted(live)
    key = await live.new_key(spend_cap_micro=60)
    asking = asyncio.create_task(live.chat(MODEL, key=key, max_tokens=500))
    opened = runtime.open(await runtime.take())
    status, body = await live.chat(MODEL, key=key, max_tokens=500)
    assert (status, body["error"]["code"], body["error"]["type"]) == (402, "spend_cap_reached", "insufficient_quota")
    await runtime.fail(opened.work, "runtime_failed")
    assert (await asking)[0] == 502
    await require_uncharged(live)


async def test_no_key_can_make_a_mightier_key(live: LiveGateway) -> None:
    key = await live.new_key(scopes=["lattice:keys:manage", INFERENCE])
    status, body = await live.call("POST", "/v1/api-keys", {"name": "x", "scopes": ["lattice:admin"]}, key=key)
    assert (status, body["error"]) == (403, "insufficient_scopes")


async def test_one_account_s_credits_do_not_pay_for_another(live: LiveGateway) -> None:
    await hosted(live)
    account, key = await new_account(live)
    status, body = await live.chat(MODEL, key=key)
    assert (status, body["error"]["code"]) == (402, "credits_exhausted")
    await fund(live, 1_000_000, account)
    assert (await live.call("GET", "/v1/credits", key=key))[1]["available_micro"] == 1_000_000
