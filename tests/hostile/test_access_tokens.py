"""Tokens that are revoked, expired, unassigned, of a deleted model or of another account."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from lattice.core.clock import ManualClock, SystemClock
from lattice.gateway.encrypted.token_rows import revoke_token
from tests.harness import LiveGateway, running_gateway
from tests.support.platform import Caller, key_bundle, provider


async def code(caller: Caller, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, answer = await caller.call(method, path, body)
    return status, answer.get("error", "")


async def test_revocation_works_at_once_here_and_within_a_second_elsewhere(live: LiveGateway) -> None:
    owner = await provider(live)
    model = await owner.model()
    await owner.deploy(model["id"])
    made, user = await owner.token(model["id"])
    await user.ok("GET", "/v1/encrypted-model")
    item = f"/v1/encrypted-models/{model['id']}/access-tokens/{made['id']}"
    assert (await owner.ok("DELETE", item))["state"] == "revoked"
    assert await code(user, "GET", "/v1/encrypted-model") == (401, "revoked_grant")
    assert (await owner.ok("DELETE", item))["state"] == "revoked"
    assert await code(owner, "POST", f"{item}/assign", {"user": "bob"}) == (401, "revoked_grant")

    made, user = await owner.token(model["id"])
    await user.ok("GET", "/v1/encrypted-model")
    # As another gateway on the same database does it: this one's cache is not told.
    account = (await owner.ok("GET", "/v1/account"))["id"]
    now = SystemClock().now_ms()
    await live.gateway.store.write(revoke_token, account, model["id"], made["id"], now)
    begun = time.monotonic()
    while (await code(user, "GET", "/v1/encrypted-model"))[0] == 200:
        assert time.monotonic() - begun < 1.2
        await asyncio.sleep(0.02)


async def test_expiry_limits_and_assignment(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_gateway(tmp_path / "gateway", clock=clock) as live:
        owner = await provider(live)
        model = await owner.model()
        await owner.deploy(model["id"])
        made, user = await owner.token(model["id"], user=None, expires_at_ms=clock.now_ms() + 60_000)
        assert made["user"] is None
        await user.ok("GET", "/v1/encrypted-model")
        for method, path, body in (
            ("GET", "/v1/evaluation-keys", None),
            ("POST", "/v1/evaluation-keys", {"upload_id": "upl_" + "0" * 26}),
            ("POST", "/v1/uploads", {"kind": "evaluation_keys", "bytes": 1, "sha256": "0" * 64}),
        ):
            assert await code(user, method, path, body) == (403, "token_unassigned")
        item = f"/v1/encrypted-models/{model['id']}/access-tokens/{made['id']}"
        assert (await owner.ok("POST", f"{item}/assign", {"user": "alice"}))["user"] == "alice"
        assert (await user.ok("GET", "/v1/evaluation-keys"))["data"] == []
        upload = await user.upload("evaluation_keys", key_bundle())
        await user.ok("POST", "/v1/evaluation-keys", {"upload_id": upload})
        await owner.ok("POST", f"{item}/assign", {"user": "bob"})
        assert (await user.ok("GET", "/v1/evaluation-keys"))["data"] == []
        assert (await owner.ok("POST", f"{item}/unassign"))["user"] is None
        clock.advance(60_000)
        assert await code(user, "GET", "/v1/encrypted-model") == (401, "access_token_expired")
        assert (await owner.ok("GET", item))["state"] == "expired"
        past = {"name": "x", "expires_at_ms": clock.now_ms()}
        assert (await code(owner, "POST", f"/v1/encrypted-models/{model['id']}/access-tokens", past))[0] == 400
        _, slow = await owner.token(model["id"], requests_per_minute=2)
        assert [(await slow.call("GET", "/v1/encrypted-model"))[0] for _ in range(3)] == [200, 200, 429]


async def test_the_secret_is_shown_once_even_to_its_maker(live: LiveGateway) -> None:
    owner = await provider(live)
    model = await owner.model()
    path = f"/v1/encrypted-models/{model['id']}/access-tokens"
    first = await owner.ok("POST", path, {"name": "x"}, idempotency_key="one")
    assert first == await owner.ok("POST", path, {"name": "x"}, idempotency_key="one")
    listed = await owner.ok("GET", path)
    assert len(listed["data"]) == 1
    assert first["secret"] not in str(listed)
    files = live.gateway.settings.data_dir.glob("lattice.db*")
    kept = b"".join(file.read_bytes() for file in files)
    assert first["secret"].removeprefix("eut_")[8:].encode() not in kept


async def test_a_token_opens_its_own_routes_and_no_other(live: LiveGateway) -> None:
    owner = await provider(live)
    model = await owner.model()
    await owner.deploy(model["id"])
    _, user = await owner.token(model["id"])
    for path in ("/v1/encrypted-models", "/v1/key", "/v1/models", f"/v1/encrypted-models/{model['id']}"):
        assert (await user.call("GET", path))[0] == 401
    assert (await live.chat("lattice:x", key=user.secret))[0] == 401
    for caller in (owner, Caller(live, "eut_unknown"), Caller(live, "")):
        assert await code(caller, "GET", "/v1/encrypted-model") == (401, "invalid_credential")
    await owner.call("DELETE", f"/v1/encrypted-models/{model['id']}")
    assert await code(user, "GET", "/v1/encrypted-model") == (401, "invalid_credential")


async def test_another_account_s_things_do_not_exist(live: LiveGateway) -> None:
    """The same answer as for ids that nobody has, with every scope."""
    owner, stranger = await provider(live), await provider(live, "stranger")
    model = await owner.model(visibility="public")
    await owner.deploy(model["id"])
    made, user = await owner.token(model["id"])
    upload = await owner.upload("model", b"x")
    keys = await user.ok(
        "POST", "/v1/evaluation-keys", {"upload_id": await user.upload("evaluation_keys", key_bundle())}
    )
    own = await stranger.model()
    base, mine = f"/v1/encrypted-models/{model['id']}", f"/v1/encrypted-models/{own['id']}"
    version = {"upload_id": upload, "kind": "artefact"}
    for method, path, body in (
        ("GET", base, None),
        ("PATCH", base, {"name": "taken over"}),
        ("DELETE", base, None),
        ("GET", f"{base}/events", None),
        ("POST", f"{base}/versions", version),
        ("GET", f"{base}/versions", None),
        ("GET", f"{base}/versions/1", None),
        ("GET", f"{base}/versions/1/report", None),
        ("POST", f"{base}/access-tokens", {"name": "x"}),
        ("GET", f"{base}/access-tokens", None),
        ("GET", f"{base}/access-tokens/{made['id']}", None),
        ("DELETE", f"{base}/access-tokens/{made['id']}", None),
        ("POST", f"{base}/access-tokens/{made['id']}/assign", {"user": "mallory"}),
        ("POST", f"{base}/access-tokens/{made['id']}/unassign", None),
        ("GET", f"{mine}/access-tokens/{made['id']}", None),
        ("DELETE", f"{mine}/access-tokens/{made['id']}", None),
        ("POST", f"{mine}/versions", version),
    ):
        assert await code(stranger, method, path, body) == (404, "not_found"), (method, path)
    assert (await stranger.ok("GET", "/v1/encrypted-models"))["data"] == [await stranger.ok("GET", mine)]
    await stranger.deploy(own["id"])
    _, other = await stranger.token(own["id"], user="alice")
    assert (await other.ok("GET", "/v1/evaluation-keys"))["data"] == []
    assert await code(other, "DELETE", f"/v1/evaluation-keys/{keys['id']}") == (404, "not_found")
    _, bob = await owner.token(model["id"], user="bob")
    assert await code(bob, "DELETE", f"/v1/evaluation-keys/{keys['id']}") == (404, "not_found")
    assert (await user.ok("GET", "/v1/encrypted-model"))["evaluation_keys"] == keys["id"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://[::1]/hook",
        "https://[::ffff:10.0.0.1]/hook",
        "https://169.254.169.254/latest",
        "https://10.1.2.3/",
        "https://user:pass@example.com/",
        "file:///etc/passwd",
        "https://",
        "nonsense",
        "https://[",
    ],
)
async def test_a_webhook_cannot_look_inside_the_network(live: LiveGateway, url: str) -> None:
    owner = await provider(live)
    body = {"name": "x", "webhook_url": url}
    assert await code(owner, "POST", "/v1/encrypted-models", body) == (400, "invalid_request")
    model = await owner.model()
    change = {"webhook_url": url}
    assert await code(owner, "PATCH", f"/v1/encrypted-models/{model['id']}", change) == (400, "invalid_request")


async def test_names_are_unique_within_an_account_until_the_model_is_deleted(live: LiveGateway) -> None:
    owner, other = await provider(live), await provider(live, "other")
    first = await owner.model("same")
    await other.model("same")
    assert await code(owner, "POST", "/v1/encrypted-models", {"name": "same"}) == (409, "name_taken")
    second = await owner.model("different")
    item = f"/v1/encrypted-models/{second['id']}"
    assert await code(owner, "PATCH", item, {"name": "same"}) == (409, "name_taken")
    await owner.call("DELETE", f"/v1/encrypted-models/{first['id']}")
    changed = await owner.ok("PATCH", item, {"name": "same", "weights_exposure": "marketplace"})
    assert (changed["name"], changed["weights_exposure"], changed["visibility"]) == ("same", "marketplace", "private")
    assert await code(owner, "PATCH", item, {"name": None}) == (400, "invalid_request")
