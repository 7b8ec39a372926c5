"""A new version under load: real worker processes, real queries all the way through, and not one of them fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import Connection, select

from lattice.client.encrypted.aio import AsyncQueryClient
from lattice.client.management import ManagementClient
from lattice.fhe import artefact
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.run import Session
from lattice.gateway.encrypted.event_rows import events_after
from lattice.gateway.queries.rows import QueryRow
from lattice.gateway.store.schema import encrypted_queries
from tests.harness import LiveGateway, running_gateway
from tests.support import compiled as tiny
from tests.support.echo_worker import Deployed

NAME = "rolling"
SAMPLES = np.array([[0.5, -0.25, 0.125, 1.0]])
OLD = tiny.compiled(0)
SAME_INTERFACE = tiny.compiled(1)
OTHER_INTERFACE = replace(SAME_INTERFACE, client=replace(OLD.client, high=2 * OLD.client.high))
"""What is encrypted for the old version must not be evaluated by this one, nor the other way round."""


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveGateway]:
    """A gateway, and a home for the clients."""
    monkeypatch.setenv("LATTICE_CLIENT_HOME", str(tmp_path / "home"))
    async with running_gateway(tmp_path / "gateway") as live:
        yield live


class Rolling:
    """A model with its users' load."""

    def __init__(self, live: LiveGateway, folder: Path) -> None:
        self.live, self.folder = live, folder
        self.provider = ManagementClient(live.url, live.secret)
        self.answers: list[np.ndarray[Any, Any]] = []
        self.token = ""

    def create(self, memory_mib: int = 4096) -> None:
        self.provider.set_hardware_class("small", micro_per_second=1000, cores=2, memory_mib=memory_mib)
        self.provider.create_encrypted_model(NAME, weights_exposure="hosted", settings={"max_workers": 4})
        self.provider.grant_credits(self.provider.key()["account"], 50_000_000, "test")
        self.upload(OLD)
        self.token = self.provider.tokens.create(NAME, "phone", user="alice")["secret"]

    def upload(self, model: Compiled) -> int:
        path = self.folder / "model.lattice"
        artefact.save(model, path)
        version = int(self.provider.upload_model(NAME, path)["version"])
        self.provider.wait_ready(NAME, version, timeout_s=60)
        return version

    def start(self, count: int) -> list[str]:
        started = self.provider.workers.start(NAME, hardware_class="small", count=count)
        return [str(self.provider.workers.wait_active(str(each["id"]))["id"]) for each in started]

    def workers(self) -> list[dict[str, Any]]:
        return list(self.provider.workers.list(NAME))

    async def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.05)

    async def load(self, user: AsyncQueryClient) -> None:
        """One caller that asks again and again; whatever goes wrong ends the test."""
        while True:
            self.answers.append((await user.query(SAMPLES)).values)

    async def more(self, count: int) -> None:
        wanted = len(self.answers) + count
        await self.until(lambda: len(self.answers) >= wanted)


def expected(model: Compiled) -> np.ndarray[Any, Any]:
    return Session(model).run(SAMPLES).values


def near(answer: np.ndarray[Any, Any], model: Compiled) -> bool:
    return bool(np.abs(answer - expected(model)).max() < 1e-3)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("new", [SAME_INTERFACE, OTHER_INTERFACE], ids=["weights", "interface"])
@pytest.mark.parametrize("memory_mib", [4096, 1], ids=["beside", "instead"])
async def test_no_query_fails_while_a_version_replaces_another(
    live: LiveGateway, tmp_path: Path, workers: int, new: Compiled, memory_mib: int
) -> None:
    """Also where ciphertexts are for the old version only, and where a worker has no room for both programs."""
    rolling = Rolling(live, tmp_path)
    await asyncio.to_thread(rolling.create, memory_mib)
    started = await asyncio.to_thread(rolling.start, workers)
    users = [AsyncQueryClient(rolling.token, base_url=live.url, folder=tmp_path / "user") for _ in range(3)]
    await users[0].keys.ensure()
    asking = [asyncio.create_task(rolling.load(user)) for user in users]
    try:
        await rolling.more(6)
        assert all(near(answer, OLD) for answer in rolling.answers)
        assert await asyncio.to_thread(rolling.upload, new) == 2
        await rolling.until(lambda: all(each["version"] == 2 for each in rolling.workers()))
        await rolling.more(12)
        first = len(rolling.answers)
        await rolling.more(6)
        done = [task for task in asking if task.done()]
        assert not done, [task.exception() for task in done]
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for user in users:
            await user.close()
    assert all(near(answer, new) for answer in rolling.answers[first:])
    assert all(near(answer, OLD) or near(answer, new) for answer in rolling.answers)
    found = await asyncio.to_thread(rolling.workers)
    assert {each["id"] for each in found} == set(started), "the same processes went on"
    assert {(each["state"], each["restarts"], each["next_version"]) for each in found} == {("active", 0, None)}
    async with asyncio.timeout(10):
        while any(query.open for query in await live.gateway.store.read(every_query)):
            await asyncio.sleep(0.05)
    queries = await live.gateway.store.read(every_query)
    assert {each.version for each in queries} == {1, 2}
    assert len([each for each in queries if each.state == "completed"]) >= len(rolling.answers)
    assert {(each.reason, each.attempt) for each in queries if each.state != "cancelled"} == {(None, 1)}
    rolling.provider.close()


@pytest.mark.timeout(120)
async def test_a_version_that_cannot_be_loaded_changes_nothing_but_is_told(live: LiveGateway, tmp_path: Path) -> None:
    """Not tried again either, until there is a newer one."""
    rolling = Rolling(live, tmp_path)
    await asyncio.to_thread(rolling.create)
    (worker,) = await asyncio.to_thread(rolling.start, 1)
    deployed = Deployed(live)
    deployed.model = (await live.call("GET", "/v1/encrypted-models"))[1]["data"][0]["id"]
    deployed.account = (await live.call("GET", "/v1/account"))[1]["id"]
    await deployed.new_version()  # random bytes for a program
    await rolling.until(lambda: rolling.workers()[0]["failed_version"] == 2)
    async with AsyncQueryClient(rolling.token, base_url=live.url, folder=tmp_path / "user") as user:
        assert near((await user.query(SAMPLES)).values, OLD)
        assert await asyncio.to_thread(rolling.upload, SAME_INTERFACE) == 3
        await rolling.until(lambda: rolling.workers()[0]["version"] == 3)
        assert near((await user.query(SAMPLES)).values, SAME_INTERFACE)
    events = await told(live, deployed.model)
    failed = [each for each in events if each["kind"] == "worker.version_failed"]
    assert [(each["worker"], each["version"], each["reason"]) for each in failed] == [(worker, 2, "artefact_invalid")]
    rolling.provider.close()


def every_query(conn: Connection) -> list[QueryRow]:
    """What was ever queued."""
    return [QueryRow(*row) for row in conn.execute(select(encrypted_queries))]


async def told(live: LiveGateway, model: str) -> list[dict[str, Any]]:
    """The model's events so far."""
    rows = await live.gateway.store.read(events_after, model, "")
    return [msgspec.json.decode(row.body) for row in rows]
