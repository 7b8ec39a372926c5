"""What an operator does: prices, idempotent creations, and a lost secret file that must not lock everybody out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lattice.core.errors import LatticeError
from lattice.gateway.app import open_gateway
from lattice.gateway.settings import GatewaySettings
from tests.harness import LiveGateway, ScriptedRuntime, running_gateway


async def test_a_new_catalogue_model_is_served_and_charged_at_its_price(live: LiveGateway) -> None:
    price = {"input_micro_per_million": 1_000_000, "output_micro_per_million": 2_000_000}
    status, _ = await live.call("PUT", "/v1/prices/tiny/model-1", price)
    assert status == 200
    account = (await live.call("GET", "/v1/account"))[1]["id"]
    await live.call("POST", "/v1/credits/grants", {"account": account, "amount_micro": 10_000_000})
    runtime = await ScriptedRuntime(live, "hosted").pair()
    runtime.offers = (type(runtime.offers[0])("tiny/model-1"),)
    await runtime.connect()
    call = asyncio.create_task(live.chat("lattice:tiny/model-1", max_tokens=5))
    await runtime.serve_one()
    assert (await call)[0] == 200
    (row,) = (await live.call("GET", "/v1/usage"))[1]["data"]
    assert row["charged_micro"] == 12 + 2 * 3


@pytest.mark.parametrize("path", ["/v1/personal-runtimes", "/v1/hosted-runtimes"])
async def test_creating_a_runtime_twice_under_one_key_makes_one(live: LiveGateway, path: str) -> None:
    made = [await live.call("POST", path, {"name": "a"}, headers={"idempotency-key": "once"}) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0][0] == 201
    assert len((await live.call("GET", path))[1]["data"]) == 1


async def test_minting_twice_under_one_key_gives_one_token(live: LiveGateway) -> None:
    runtime = (await live.call("POST", "/v1/personal-runtimes", {"name": "a"}))[1]["id"]
    path = f"/v1/personal-runtimes/{runtime}/bootstrap-tokens"
    tokens = {(await live.call("POST", path, {}, headers={"idempotency-key": "once"}))[1]["token"] for _ in range(2)}
    assert len(tokens) == 1
    assert (await live.call("POST", path, {}))[1]["token"] not in tokens


@pytest.mark.parametrize("name", ["pepper", "gateway.key"])
async def test_a_lost_secret_file_is_not_replaced_on_a_used_database(tmp_path: Path, name: str) -> None:
    async with running_gateway(tmp_path):
        pass
    (tmp_path / name).unlink()
    with pytest.raises(LatticeError, match="restore the backup"):
        await open_gateway(GatewaySettings(data_dir=tmp_path))
    assert not (tmp_path / name).exists()


async def test_openapi_has_every_route_of_the_design(live: LiveGateway) -> None:
    paths = (await live.call("GET", "/openapi.json"))[1]["paths"]
    for path in (
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/relay/poll",
        "/v1/relay/frames",
        "/v1/relay/renew",
        "/v1/relay/fail",
        "/v1/personal-runtimes",
        "/v1/prices/{model}",
        "/healthz",
    ):
        assert path in paths
