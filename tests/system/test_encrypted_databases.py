"""A search in rows that their owner encrypted and uploaded once: real gateway, real worker process, public SDK."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import delete

from lattice.client.encrypted.databases import Pin
from lattice.client.encrypted.query import QueryClient
from lattice.core.worker_relay import WorkerWork
from lattice.gateway.store.encrypted_schema import uploads
from lattice.sealing.identity import IdentityKey
from lattice.sealing.worker_receipt import read_worker_receipt, sign_worker_receipt
from tests.harness import LiveGateway, running_gateway
from tests.support.echo_worker import QUERIES, Deployed, bundle
from tests.support.search import OTHERS, QUESTIONS, VECTORS, deployed_search, nearest, refused, save_search


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_search(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveGateway]:
    monkeypatch.setenv("LATTICE_CLIENT_HOME", str(tmp_path / "home"))
    async with running_gateway(tmp_path / "gateway") as live:
        yield live


@pytest.mark.timeout(180)
async def test_one_upload_serves_many_queries_and_every_answer_names_its_database(
    live: LiveGateway, compiled: Path, tmp_path: Path
) -> None:
    def story() -> None:
        with deployed_search(live, compiled) as (_, alice, eve):
            options: dict[str, Any] = {"base_url": live.url, "folder": tmp_path / "alice"}
            with QueryClient(alice, **options) as user:
                user.keys.ensure()
                database = user.upload_database(VECTORS)
                for _ in range(2):
                    found = user.query(QUESTIONS, database=database)
                    assert np.asarray(found.labels).tolist() == nearest(VECTORS, QUESTIONS)
                other = user.upload_database(OTHERS)
                found = user.query(QUESTIONS, database=other)
                assert np.asarray(found.labels).tolist() == nearest(OTHERS, QUESTIONS)
                result = user.execute(user.encrypt(QUESTIONS[:1]), database=database)
                assert result.receipt.database == user.databases.sha256(database)
                assert {each["id"]: each["sha256"] for each in user.databases.list()} == {
                    each: user.databases.sha256(each) for each in (database, other)
                }

                # A worker that used another database: what it signs is true, and not what was asked.
                user._session.pins.put(database, Pin(user.databases.sha256(other)))
                assert (
                    "database" in refused("receipt_invalid", lambda: user.query(QUESTIONS, database=database)).message
                )
                user.databases.pin(database, result.receipt.database or "")
                user.query(QUESTIONS[:1], database=database)

                refused("invalid_request", lambda: user.query(QUESTIONS[:1]))
                user._session.pins.put(database, Pin(user.databases.sha256(database), "fsk_another"))
                refused("keys_mismatch", lambda: user.query(QUESTIONS[:1], database=database))

            with QueryClient(eve, base_url=live.url, folder=tmp_path / "eve") as stranger:
                stranger.keys.ensure()
                assert stranger.databases.list() == []
                refused("database_unknown", lambda: stranger.query(QUESTIONS[:1], database=database))
                stranger.databases.pin(database, result.receipt.database or "")
                refused("not_found", lambda: stranger.query(QUESTIONS[:1], database=database))
                refused("not_found", lambda: stranger.databases.delete(database))

            with QueryClient(alice, **options) as user:
                user.databases.delete(database)
                refused("database_unknown", lambda: user.query(QUESTIONS[:1], database=database))
                assert [each["id"] for each in user.databases.list()] == [other]
                assert np.asarray(user.query(QUESTIONS, database=other).labels).tolist() == nearest(OTHERS, QUESTIONS)

    await asyncio.to_thread(story)


@pytest.mark.timeout(180)
async def test_a_receipt_changed_on_its_way_is_refused(live: LiveGateway, compiled: Path, tmp_path: Path) -> None:
    """Somebody between worker and user signs a receipt that differs in the database alone, or drops it."""

    def story() -> None:
        with (
            deployed_search(live, compiled) as (_, alice, _eve),
            QueryClient(alice, base_url=live.url, folder=tmp_path / "alice") as user,
        ):
            user.keys.ensure()
            database = user.upload_database(VECTORS)
            identity, honest = IdentityKey.generate(), user._http.send

            def forging(request: Any, **more: Any) -> Any:
                response = honest(request, **more)
                text = response.headers.get("x-lattice-receipt")
                if text is not None:
                    members = {"identity": identity.public.text, "database": forged}
                    changed = msgspec.structs.replace(read_worker_receipt(text), **members)
                    response.headers["x-lattice-receipt"] = sign_worker_receipt(identity, changed)
                return response

            user._http.send = forging  # type: ignore[method-assign]
            for forged in ("1" * 64, None):  # noqa: B007  `forging` reads it
                refused("receipt_invalid", lambda: user.query(QUESTIONS[:1], database=database))
            forged = user.databases.sha256(database)
            user.query(QUESTIONS[:1], database=database)  # so the forger fails by the database, not by the signature

    await asyncio.to_thread(story)


# --- with a worker whose every step the test decides -----------------------------------------------------------------


async def uploaded(deployed: Deployed) -> tuple[str, str]:
    """A database of ada's: id and hash. Its bytes are of no interest."""
    data = bundle(4, 1000)
    sha256 = hashlib.sha256(data).hexdigest()
    live, key = deployed.live, deployed.token
    announced = {"kind": "database", "bytes": len(data), "sha256": sha256}
    begun = (await live.call("POST", "/v1/uploads", announced, key=key))[1]
    url = f"{live.url}/v1/uploads/{begun['id']}/parts/0"
    async with live.http.put(url, data=data, headers={"authorization": f"Bearer {key}"}) as answer:
        assert answer.status == 200
    await live.call("POST", f"/v1/uploads/{begun['id']}/complete", key=key)
    status, made = await live.call("POST", "/v1/encrypted-databases", {"upload_id": begun["id"]}, key=key)
    assert (status, made["sha256"]) == (201, sha256)
    return made["id"], sha256


@pytest.mark.parametrize("forged", ["1" * 64, None])
async def test_the_gateway_takes_no_receipt_about_another_database(live: LiveGateway, forged: str | None) -> None:
    deployed = await Deployed(live).deploy()
    worker, (database, sha256) = await deployed.worker(), await uploaded(deployed)
    query = (await deployed.submit(database=database))["id"]
    work = await worker.take()
    assert work.database == sha256
    status, told = await worker.answer(work, database=forged)
    assert (status, told["error"]) == (502, "receipt_invalid")
    # Neither where the gateway has forgotten what it leased, as after a restart of its own.
    live.gateway.workers.service.links.clear()
    assert (await worker.deliver(work, bundle(), database=forged))[1]["error"] == "receipt_invalid"
    assert (await worker.deliver(work, bundle()))[0] == 200
    assert (await deployed.read(query))["state"] == "completed"


async def test_a_database_is_deleted_while_queries_wait_and_run(live: LiveGateway) -> None:
    """Those that wait fail at once and by name; the one that a worker has is finished, bytes and all."""
    deployed = await Deployed(live).deploy()
    worker, (database, _) = await deployed.worker(), await uploaded(deployed)
    running = (await deployed.submit(database=database))["id"]
    work: WorkerWork = await worker.take()
    waiting = [asyncio.create_task(deployed.query(database=database)) for _ in range(2)]
    async with asyncio.timeout(10):
        while len((await live.call("GET", QUERIES, key=deployed.token))[1]["data"]) < 3:
            await asyncio.sleep(0.01)
    path = f"/v1/encrypted-databases/{database}"
    assert (await live.call("DELETE", path, key=deployed.token))[0] == 204
    for status, body, _ in await asyncio.gather(*waiting):
        assert (status, json.loads(body)["error"]) == (409, "database_missing")
    await live.gateway.store.write(lambda conn: conn.execute(delete(uploads)))  # as after a day
    assert work.database is not None
    await live.gateway.encrypted.sweep(-60.0)
    assert (await worker.answer(work))[0] == 200  # which fetches the database
    assert (await deployed.read(running))["state"] == "completed"
    status, body, _ = await deployed.query(database=database)
    assert (status, json.loads(body)["error"]) == (404, "not_found")
    assert (await live.call("DELETE", path, key=deployed.token))[0] == 404
    await live.gateway.encrypted.sweep(-60.0)
    assert await live.gateway.encrypted.blobs.size(bytes.fromhex(work.database)) is None


@pytest.mark.timeout(180)
async def test_the_same_by_commands(live: LiveGateway, compiled: Path, tmp_path: Path) -> None:
    """Upload, show, search, list, delete; each a process of its own."""
    np.save(tmp_path / "rows.npy", VECTORS)
    np.save(tmp_path / "questions.npy", QUESTIONS[:2])

    def command(token: str, *words: str) -> dict[str, Any]:
        environment = {**os.environ, "LATTICE_BASE_URL": live.url, "LATTICE_ACCESS_TOKEN": token}
        done = subprocess.run(
            [sys.executable, "-m", "lattice.cli.main", *words, "--json"], env=environment, stdout=subprocess.PIPE
        )
        assert done.returncode == 0, (words, done.stdout)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def story() -> None:
        with deployed_search(live, compiled) as (_, alice, _eve):
            made = command(alice, "databases", "upload", str(tmp_path / "rows.npy"))
            answer = command(alice, "query", str(tmp_path / "questions.npy"), "--database", made["id"])
            assert answer["labels"] == nearest(VECTORS, QUESTIONS[:2])
            (listed,) = command(alice, "databases", "list")["databases"]
            assert listed["sha256"] == made["sha256"] == command(alice, "databases", "show", made["id"])["sha256"]
            assert command(alice, "databases", "pin", made["id"], made["sha256"])["sha256"] == made["sha256"]
            command(alice, "databases", "delete", made["id"])
            assert command(alice, "databases", "list")["databases"] == []

    await asyncio.to_thread(story)
