from __future__ import annotations

import asyncio

import pytest

from lattice.gateway import ledger
from lattice.gateway.identity import ALL_SCOPES, DEFAULT_SCOPES, Pepper, revoke_key
from lattice.gateway.store import Store
from tests.support.control_plane import Api, make_api
from tests.support.ledger import NOW, admission, settlement

ROUTES = [
    ("GET", "/v1/account", None),
    ("GET", "/v1/key", None),
    ("GET", "/v1/accounts", "lattice:admin"),
    ("POST", "/v1/accounts", "lattice:admin"),
    ("GET", "/v1/api-keys", "lattice:keys:manage"),
    ("POST", "/v1/api-keys", "lattice:keys:manage"),
    ("DELETE", "/v1/api-keys/key_x", "lattice:keys:manage"),
    ("GET", "/v1/credits", "lattice:credits:read"),
    ("POST", "/v1/credits/grants", "lattice:admin"),
    ("GET", "/v1/usage", "lattice:compute:usage:read"),
    ("GET", "/v1/ledger/entries", "lattice:credits:read"),
    ("GET", "/v1/prices", "lattice:compute:catalog:read"),
    ("PUT", "/v1/prices/model_x", "lattice:admin"),
]
BODIES = {
    "/v1/accounts": {"name": "n"},
    "/v1/api-keys": {"name": "n"},
    "/v1/prices/model_x": {"input_micro_per_million": 1, "output_micro_per_million": 2},
    "/v1/credits/grants": {"account": "acc_" + "0" * 26, "amount_micro": 1},
}


@pytest.fixture
async def api(store: Store, pepper: Pepper) -> Api:
    return await make_api(store, pepper)


@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
async def test_every_route_needs_a_live_key_and_its_scope(api: Api, method: str, path: str, scope: str | None) -> None:
    body = BODIES.get(path) if method == "POST" else None
    for secret in ("", "nonsense", "sk_lat_unknown"):
        status, answer = await api.as_key(secret).call(method, path, body)
        assert (status, answer["error"]) == (401, "invalid_credential")
    if scope is None:
        assert (await api.call(method, path))[0] == 200
        return
    others = sorted(str(other) for other in ALL_SCOPES - {scope})
    status, answer = await (await api.make_key(scopes=others)).call(method, path, body)
    assert (status, answer["error"], answer["needs"]) == (403, "insufficient_scopes", scope)


async def test_a_key_may_come_in_either_header_but_not_as_two(api: Api) -> None:
    status, _ = await api.call("GET", "/v1/key", authorization="", x_api_key=api.secret)
    assert status == 200
    status, _ = await api.call("GET", "/v1/key", x_api_key=api.secret)
    assert status == 200
    for headers in ({"x_api_key": "sk_lat_other"}, {"authorization": f"Basic {api.secret}"}):
        status, answer = await api.call("GET", "/v1/key", **headers)
        assert (status, answer["error"]) == (401, "invalid_credential")


async def test_a_key_tells_what_it_may_do_and_never_its_secret(api: Api) -> None:
    made = await api.make_key(
        name=" my app ", allowed_models=["b", "a"], spend_cap_micro=7, requests_per_minute=60, expires_at_ms=NOW + 1
    )
    status, key = await made.call("GET", "/v1/key")
    assert status == 200
    assert made.secret not in str(key)
    assert made.secret.startswith(key["prefix"])
    assert key["scopes"] == sorted(map(str, DEFAULT_SCOPES))
    assert (key["name"], key["allowed_models"], key["spend_cap_micro"]) == ("my app", ["a", "b"], 7)
    assert (key["requests_per_minute"], key["expires_at_ms"], key["spent_micro"]) == (60, NOW + 1, 0)
    assert key["account"] == api.owner.account_id
    _, listed = await api.call("GET", "/v1/api-keys")
    assert made.secret not in str(listed)


async def test_a_key_cannot_make_a_key_that_may_do_more(api: Api) -> None:
    manager = await api.make_key(scopes=["lattice:keys:manage", "lattice:compute:inference"])
    status, answer = await manager.call("POST", "/v1/api-keys", {"name": "x", "scopes": ["lattice:admin"]})
    assert (status, answer["error"], answer["needs"]) == (403, "insufficient_scopes", "lattice:admin")
    made = await manager.make_key()
    assert (await made.call("GET", "/v1/key"))[1]["scopes"] == ["lattice:compute:inference"]
    body = {"name": "x", "account": await api.make_account()}
    status, answer = await manager.call("POST", "/v1/api-keys", body)
    assert (status, answer["needs"]) == (403, "lattice:admin")


async def test_a_revoked_key_stops_at_once(api: Api) -> None:
    made = await api.make_key()
    _, key = await made.call("GET", "/v1/key")
    status, revoked = await api.call("DELETE", f"/v1/api-keys/{key['id']}")
    assert (status, revoked["revoked_at_ms"]) == (200, NOW)
    status, answer = await made.call("GET", "/v1/key")
    assert (status, answer["error"]) == (401, "revoked_grant")


async def test_accounts_do_not_see_each_other(api: Api) -> None:
    other_id = await api.make_account("other")
    scopes = [str(scope) for scope in ALL_SCOPES if scope != "lattice:admin"]
    other = await api.make_key(account=other_id, scopes=scopes)
    own = api.owner.account_id
    await api.call("POST", "/v1/credits/grants", {"account": own, "amount_micro": 500})
    assert (await other.call("GET", "/v1/account"))[1]["name"] == "other"
    assert (await other.call("GET", "/v1/credits"))[1] == {
        "account": other_id,
        "available_micro": 0,
        "held_micro": 0,
    }
    assert (await other.call("GET", "/v1/ledger/entries"))[1] == {"data": [], "next_cursor": None}
    assert [key["account"] for key in (await other.call("GET", "/v1/api-keys"))[1]["data"]] == [other_id]
    status, answer = await other.call("DELETE", f"/v1/api-keys/{api.owner.key_id}")
    assert (status, answer["error"]) == (404, "not_found")
    for path in ("/v1/credits", "/v1/usage", "/v1/ledger/entries", "/v1/api-keys"):
        status, answer = await other.call("GET", f"{path}?account={own}")
        assert (status, answer["needs"]) == (403, "lattice:admin")
        assert (await api.call("GET", f"{path}?account={other_id}"))[0] == 200


async def test_a_grant_is_given_once_per_idempotency_key_and_its_answer_replayed(api: Api) -> None:
    body = {"account": api.owner.account_id, "amount_micro": 500, "reason": "welcome"}
    first = await api.call("POST", "/v1/credits/grants", body, idempotency_key="one")
    assert first == (201, {**body, "available_micro": 500, "held_micro": 0})
    repeats = await asyncio.gather(
        *[api.call("POST", "/v1/credits/grants", body, idempotency_key="one") for _ in range(5)]
    )
    assert repeats == [first] * 5
    status, answer = await api.call("POST", "/v1/credits/grants", body | {"amount_micro": 501}, idempotency_key="one")
    assert (status, answer["error"]) == (409, "idempotency_conflict")
    api.state.clock.advance(3 * 86_400_000)  # the answer is forgotten, the grant is not
    assert (await api.call("POST", "/v1/credits/grants", body, idempotency_key="one"))[0] == 201
    assert (await api.call("GET", "/v1/credits"))[1]["available_micro"] == 500
    await api.call("POST", "/v1/credits/grants", body)
    assert (await api.call("GET", "/v1/credits"))[1]["available_micro"] == 1_000


async def test_a_key_is_made_once_per_idempotency_key(api: Api) -> None:
    first = await api.call("POST", "/v1/api-keys", {"name": "x"}, idempotency_key="one")
    assert await api.call("POST", "/v1/api-keys", {"name": "x"}, idempotency_key="one") == first
    assert len((await api.call("GET", "/v1/api-keys"))[1]["data"]) == 2
    status, _ = await api.as_key(first[1]["secret"]).call("GET", "/v1/key")
    assert status == 200


async def test_usage_and_entries_are_read_in_pages(api: Api) -> None:
    own = api.owner.account_id
    await api.call("POST", "/v1/credits/grants", {"account": own, "amount_micro": 1_000})
    requests = [admission(own, 100, key_id=api.owner.key_id, now_ms=NOW + i) for i in range(3)]
    for request in requests:
        await api.state.store.write(ledger.admit, request)
        await api.state.store.write(ledger.settle, settlement(request.work_id, 40, now_ms=request.now_ms))
    _, first = await api.call("GET", "/v1/usage?limit=2")
    assert [row["work"] for row in first["data"]] == [requests[2].work_id, requests[1].work_id]
    _, rest = await api.call("GET", f"/v1/usage?limit=2&cursor={first['next_cursor']}")
    assert ([row["work"] for row in rest["data"]], rest["next_cursor"]) == ([requests[0].work_id], None)
    assert rest["data"][0]["charged_micro"] == 40
    assert rest["data"][0]["key"] == api.owner.key_id
    _, entries = await api.call("GET", f"/v1/ledger/entries?work={requests[1].work_id}")
    assert sum(row["amount_micro"] for row in entries["data"]) == 0
    revenue = [row["amount_micro"] for row in entries["data"] if row["ledger_account"] == "lattice:revenue"]
    assert revenue == [40]
    _, pages = await api.call("GET", "/v1/ledger/entries?limit=100")
    assert (len(pages["data"]), pages["next_cursor"]) == (2 + 15, None)
    assert (await api.call("GET", "/v1/key"))[1]["spent_micro"] == 120
    _, accounts = await api.call("GET", "/v1/accounts?limit=1")
    assert ([row["id"] for row in accounts["data"]], accounts["next_cursor"]) == ([own], None)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/usage?limit=0",
        "/v1/usage?limit=101",
        "/v1/usage?limit=x",
        "/v1/usage?cursor=ent_00000000000000000000000000",
        "/v1/usage?cursor=%00",
        "/v1/credits?account=me",
        "/v1/credits?account=acc_%00",
        "/v1/ledger/entries?work=1",
    ],
)
async def test_queries_that_make_no_sense(api: Api, path: str) -> None:
    status, answer = await api.call("GET", path)
    assert (status, answer["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/accounts", b"not json"),
        ("/v1/accounts", b"[" * 50_000),
        ("/v1/accounts", {}),
        ("/v1/accounts", {"name": "  "}),
        ("/v1/accounts", {"name": "a\u0000b"}),
        ("/v1/accounts", b'{"name": "a\\ud800b"}'),
        ("/v1/accounts", {"name": "x" * 201}),
        ("/v1/accounts", {"name": "x", "canary-member": 1}),
        ("/v1/api-keys", {"name": "x", "scopes": ["canary-scope"]}),
        ("/v1/api-keys", {"name": "x", "scopes": []}),
        ("/v1/api-keys", {"name": "x", "spend_cap_micro": -1}),
        ("/v1/api-keys", {"name": "x", "spend_cap_micro": 1.5}),
        ("/v1/api-keys", {"name": "x", "spend_cap_micro": 2**63}),
        ("/v1/api-keys", {"name": "x", "requests_per_minute": 0}),
        ("/v1/api-keys", {"name": "x", "expires_at_ms": NOW}),
        ("/v1/api-keys", {"name": "x", "allowed_models": ["\n"]}),
        ("/v1/credits/grants", {"account": "canary", "amount_micro": 1}),
        ("/v1/credits/grants", {"account": "acc_" + "0" * 26, "amount_micro": True}),
        ("/v1/credits/grants", {"account": "acc_" + "0" * 26, "amount_micro": 0}),
        ("/v1/credits/grants", {"account": "acc_" + "0" * 26, "amount_micro": 2**70}),
    ],
)
async def test_bodies_that_make_no_sense(api: Api, path: str, body: object) -> None:
    status, answer = await api.call("POST", path, body)
    assert (status, answer["error"]) == (400, "invalid_request")
    assert "canary" not in str(answer)


async def test_unknown_accounts_and_keys_are_not_found(api: Api) -> None:
    nobody = "acc_" + "0" * 26
    for method, path, body in (
        ("POST", "/v1/credits/grants", {"account": nobody, "amount_micro": 1}),
        ("POST", "/v1/api-keys", {"name": "x", "account": nobody}),
        ("DELETE", "/v1/api-keys/key_" + "0" * 26, None),
        ("DELETE", "/v1/api-keys/%00", None),
    ):
        status, answer = await api.call(method, path, body)
        assert (status, answer["error"]) == (404, "not_found")


async def test_unknown_routes_and_methods_are_catalogued(api: Api) -> None:
    for method, path, expected in (
        ("GET", "/v1/none", (404, "not_found")),
        ("PUT", "/v1/key", (405, "method_not_allowed")),
    ):
        status, answer = await api.call(method, path)
        assert (status, answer["error"]) == expected


async def test_an_outage_is_503_and_not_401(api: Api) -> None:
    await api.state.store.close()
    for method, path, body in (("GET", "/v1/key", None), ("POST", "/v1/accounts", {"name": "x"})):
        status, answer = await api.call(method, path, body)
        assert (status, answer["error"]) == (503, "store_unavailable")


async def test_the_last_use_of_a_key_is_shown(api: Api, store: Store) -> None:
    made = await api.make_key()
    _, key = await made.call("GET", "/v1/key")
    assert key["last_used_at_ms"] is None
    await api.state.keys.flush()
    api.state.keys.clear()
    assert (await made.call("GET", "/v1/key"))[1]["last_used_at_ms"] == NOW
    await store.write(revoke_key, api.owner.account_id, key["id"], NOW)


def test_openapi_describes_every_route() -> None:
    from fastapi import FastAPI

    from lattice.gateway.api import routers

    app = FastAPI()
    for router in routers(object()):  # type: ignore[arg-type]
        app.include_router(router)
    described = app.openapi()["paths"]
    assert {(method.upper(), path) for path, methods in described.items() for method in methods} == {
        (method, path.replace("key_x", "{key_id}").replace("model_x", "{model}")) for method, path, _ in ROUTES
    }
