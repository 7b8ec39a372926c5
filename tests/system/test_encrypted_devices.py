"""Several devices of one user: a set of keys for each, or one secret that two of them share."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection

from lattice.client.encrypted.aio import AsyncQueryClient
from lattice.client.encrypted.keys import DEVICE_VARIABLE, device_name
from lattice.client.encrypted.query import QueryClient
from lattice.core.errors import LatticeError
from lattice.gateway.encrypted import evaluation_key_rows
from tests.harness import LiveGateway, running_gateway
from tests.support.search import QUESTIONS, VECTORS, deployed_search, nearest, refused, save_search

WANTED = nearest(VECTORS, QUESTIONS)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_search(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveGateway]:
    monkeypatch.setenv("LATTICE_CLIENT_HOME", str(tmp_path / "home"))
    async with running_gateway(tmp_path / "gateway") as live:
        yield live


def labels(client: QueryClient, database: str) -> list[list[int]]:
    found: list[list[int]] = np.asarray(client.query(QUESTIONS, database=database).labels).tolist()
    return found


@pytest.mark.timeout(180)
async def test_two_devices_have_secrets_of_their_own_and_ask_at_once(
    live: LiveGateway, compiled: Path, tmp_path: Path
) -> None:
    def story() -> None:
        with deployed_search(live, compiled) as (provider, alice, eve):
            second = provider.tokens.create("search", "laptop", user="alice")["secret"]

            def device(token: str, name: str) -> QueryClient:
                return QueryClient(token, base_url=live.url, folder=tmp_path / name, device=name)

            with device(alice, "phone") as phone, device(second, "laptop") as laptop:
                sets = {name: client.keys.ensure() for name, client in (("phone", phone), ("laptop", laptop))}
                assert len(set(sets.values())) == 2
                listed = phone.keys.list()
                assert {each["device"]: each["id"] for each in listed} == sets
                assert [each["device"] for each in listed if each["this_device"]] == ["phone"]
                databases = {client: client.upload_database(VECTORS) for client in (phone, laptop)}
                with ThreadPoolExecutor(2) as pool:
                    assert list(pool.map(labels, databases, databases.values())) == [WANTED, WANTED]

                # The gateway does not guess whose keys are meant.
                context, asked = phone._session.context, phone.encrypt(QUESTIONS[:1])
                path = f"{context.root}/encrypted-queries?database={databases[phone]}"
                answer = phone._http.post(path, content=asked.data, headers=context.headers)
                assert (answer.status_code, answer.json()["error"]) == (409, "keys_ambiguous")
                assert (
                    phone._http.get(f"{context.root}/encrypted-model", headers=context.headers).json()[
                        "evaluation_keys"
                    ]
                    is None
                )

                # A database of the other device cannot be read with this device's secret.
                phone.databases.pin(databases[laptop], laptop.databases.sha256(databases[laptop]))
                assert labels(phone, databases[laptop]) != WANTED

                replaced = phone.keys.ensure(replace=True)
                assert {each["id"] for each in laptop.keys.list()} == {replaced, sets["laptop"]}
                assert labels(laptop, databases[laptop]) == WANTED
                refused("keys_mismatch", lambda: labels(phone, databases[phone]))
                assert labels(phone, phone.upload_database(VECTORS)) == WANTED

                laptop.keys.delete(replaced)  # the other device's; it makes its set again from its secret
                assert [each["device"] for each in laptop.keys.list()] == ["laptop"]
            with device(alice, "phone") as phone:
                assert phone.keys.ensure() not in (replaced, sets["laptop"])
                assert len(phone.keys.list()) == 2
            with QueryClient(eve, base_url=live.url, folder=tmp_path / "eve") as stranger:
                assert stranger.keys.list() == []
                refused("not_found", lambda: stranger.keys.delete(sets["laptop"]))

    await asyncio.to_thread(story)


@pytest.mark.timeout(180)
async def test_a_secret_that_is_shared_reads_the_other_device_s_databases(
    live: LiveGateway, compiled: Path, tmp_path: Path
) -> None:
    def story() -> None:
        with deployed_search(live, compiled) as (_, alice, _eve):

            def device(name: str, **more: Any) -> QueryClient:
                return QueryClient(alice, base_url=live.url, folder=tmp_path / name, device=name, **more)

            with device("phone") as phone, device("tablet", passphrase="its own") as tablet:
                own = phone.keys.ensure()
                database = phone.upload_database(VECTORS)
                pinned = phone.databases.sha256(database)
                exported = phone.keys.export("correct horse")
                assert phone._session.keys is not None
                assert phone._session.keys.secret.coefficients().tobytes()[:64] not in exported
                refused("secret_locked", lambda: tablet.keys.import_secret(exported, "wrong"))
                refused("blob_invalid", lambda: tablet.keys.import_secret(exported[:-2], "correct horse"))
                assert tablet.keys.import_secret(exported, "correct horse") == own
                assert len(tablet.keys.list()) == 1
                tablet.databases.pin(database, pinned)
                assert labels(tablet, database) == WANTED == labels(phone, database)
            with device("tablet", passphrase="its own") as tablet:  # from its own disk, under its own passphrase
                assert tablet.keys.ensure() == own
                assert labels(tablet, database) == WANTED

            with device("watch") as watch:
                other = watch.keys.ensure()
                assert (
                    "replace"
                    in refused("invalid_request", lambda: watch.keys.import_secret(exported, "correct horse")).message
                )
                assert watch.keys.ensure() == other
                assert watch.keys.import_secret(exported, "correct horse", replace=True) == own
                assert [each["id"] for each in watch.keys.list()] == [own]  # the set of the lost secret is gone

            # A file that names another set is not believed: the secret's keys are registered anew.
            lying = json.loads(exported) | {"evaluation_keys": other, "keys_hash": "1" * 64}
            with device("liar") as liar:
                assert liar.keys.import_secret(json.dumps(lying).encode(), "correct horse") not in (own, other)
                liar.databases.pin(database, pinned)
                assert labels(liar, database) == WANTED

    await asyncio.to_thread(story)


@pytest.mark.timeout(120)
async def test_the_ninth_device_is_told_what_to_do(live: LiveGateway, compiled: Path, tmp_path: Path) -> None:
    """Before it has made or sent anything."""

    def crowd(conn: Connection) -> None:
        (row,) = evaluation_key_rows.list_keys(conn, model, "alice")
        for number in range(7):
            new = evaluation_key_rows.NewKeys(
                account_id=row.account_id,
                model_id=row.model_id,
                user=row.user,
                parameters_id=row.parameters_id,
                keys_hash=row.keys_hash,
                blob_sha256=bytes([number]) * 32,
                public_key_sha256=b"p" * 32,
                size=1,
            )
            evaluation_key_rows.register_keys(conn, new, live.gateway.clock.now_ms())

    async with AsyncQueryClient(
        await asyncio.to_thread(deployed_token, live, compiled), base_url=live.url, folder=tmp_path / "first"
    ) as first:
        model = str((await first.model())["model"])
        own = await first.keys.ensure()
        await live.gateway.store.write(crowd)
        stages: list[str] = []
        async with AsyncQueryClient(first_token(first), base_url=live.url, folder=tmp_path / "ninth") as ninth:
            with pytest.raises(LatticeError) as caught:
                await ninth.keys.ensure(lambda stage, *_: stages.append(stage))
            assert caught.value.code == "too_many_keys"
            assert "lattice query-keys list" in caught.value.spec.remedy
            assert stages == []
            assert await first.keys.ensure(replace=True) != own
            await first.keys.delete((await first.keys.list())[-1]["id"])
            await ninth.keys.ensure()


def deployed_token(live: LiveGateway, path: Path) -> str:
    with deployed_search(live, path) as (_, alice, _eve):
        return alice


def first_token(client: AsyncQueryClient) -> str:
    return client._session.context.headers["authorization"].removeprefix("Bearer ")


def test_a_device_s_name_is_short_and_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE_VARIABLE, " my\x07phone\n" + "x" * 200)
    assert device_name() == "myphone" + "x" * 93
    assert device_name("") == ""
    monkeypatch.delenv(DEVICE_VARIABLE)
    assert device_name() == os.uname().nodename[:100]


@pytest.mark.timeout(180)
async def test_the_same_by_commands(live: LiveGateway, compiled: Path, tmp_path: Path) -> None:
    def command(name: str, *words: str) -> dict[str, Any]:
        environment = {
            **os.environ,
            "LATTICE_BASE_URL": live.url,
            "LATTICE_ACCESS_TOKEN": token,
            "LATTICE_DEVICE": name,
            "LATTICE_EXPORT_PASSPHRASE": "correct horse",
        }
        line = [sys.executable, "-m", "lattice.cli.main", *words, "--keys", str(tmp_path / name), "--json"]
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE)
        assert done.returncode == 0, (words, done.stdout)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def story() -> None:
        own = command("phone", "query-keys", "make")["evaluation_keys"]
        other = command("laptop", "query-keys", "make")["evaluation_keys"]
        assert own != other
        file = str(tmp_path / "phone.key")
        command("phone", "query-keys", "export", file)
        assert os.stat(file).st_mode & 0o077 == 0
        assert command("laptop", "query-keys", "import", file, "--replace")["evaluation_keys"] == own
        (listed,) = command("laptop", "query-keys", "list")["keys"]
        assert (listed["id"], listed["device"], listed["this_device"]) == (own, "phone", True)
        command("laptop", "query-keys", "delete", own)
        assert command("phone", "query-keys", "list")["keys"] == []

    token = await asyncio.to_thread(deployed_token, live, compiled)
    await asyncio.to_thread(story)
