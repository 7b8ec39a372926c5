"""Budgets and rates of access tokens under concurrency, by the gateway's own clock and with real HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from tests.callers import fund
from tests.harness import LiveGateway
from tests.support.echo_worker import QUERIES, Deployed, EchoWorker, priced_worker

PRICE = 1_000_000
"""Micro-credits a second: a thousand for each millisecond."""


@pytest.fixture
async def deployed(live: LiveGateway) -> Deployed:
    await fund(live, 500_000_000)
    await live.call("PUT", "/v1/hardware-classes/dear", {"micro_per_second": PRICE, "cores": 1, "memory_mib": 1})
    return await Deployed(live).deploy()


async def token_of(deployed: Deployed, token_id: str) -> dict[str, Any]:
    path = f"/v1/encrypted-models/{deployed.model}/access-tokens/{token_id}"
    return dict((await deployed.live.call("GET", path))[1])


async def records(deployed: Deployed, token: str) -> list[dict[str, Any]]:
    return list((await deployed.live.call("GET", f"{QUERIES}?limit=100", key=token))[1]["data"])


async def submitted(deployed: Deployed, token: str, count: int) -> list[tuple[int, Any]]:
    async def one() -> tuple[int, Any]:
        status, body, _ = await deployed.query(token=token, wait="0")
        return status, msgspec.json.decode(body)

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def all_taken(worker: EchoWorker, count: int) -> list[Any]:
    """Poll until so many are leased."""
    works: list[Any] = []
    while len(works) < count:
        works += (await worker.poll()).work
        worker.running = [work.id for work in works]
    return works


async def test_a_budget_is_exceeded_by_what_runs_and_by_nothing_that_waits(deployed: Deployed) -> None:
    """Twelve queries at once for a budget of nothing: the two that a worker has are paid, ten never run."""
    worker = await priced_worker(deployed, "dear")
    worker.concurrency = 2
    token_id, token = await deployed.new_token("ada", budget_micro=1)
    assert [status for status, _ in await submitted(deployed, token, 12)] == [202] * 12
    works = await all_taken(worker, 2)
    await asyncio.sleep(0.02)
    for work in works:
        assert (await worker.answer(work))[1]["state"] == "completed"
    while [each["state"] for each in await records(deployed, token)].count("queued"):
        assert await worker.poll_briefly() is None or not worker.running
    found = await records(deployed, token)
    completed = [each for each in found if each["state"] == "completed"]
    assert {each["id"] for each in completed} == {work.id for work in works}
    assert [each["reason"] for each in found].count("budget_reached") == 10
    assert all(each["attempt"] == 0 for each in found if each["reason"] == "budget_reached")
    told = await token_of(deployed, token_id)
    assert told["spent_micro"] == sum(each["worker_ms"] for each in completed) * PRICE // 1000 > 1
    assert told["queries"] == 2
    status, body, _ = await deployed.query(token=token)
    assert (status, msgspec.json.decode(body)["error"]) == (402, "budget_reached")
    assert await submitted(deployed, deployed.token, 1)  # another token of the same user is not concerned
    (work,) = await all_taken(worker, 1)
    assert (await worker.answer(work))[0] == 200


async def test_usage_is_the_sum_of_what_each_query_took_however_many_run_at_once(deployed: Deployed) -> None:
    workers = [await priced_worker(deployed, "dear") for _ in range(2)]
    token_id, token = await deployed.new_token("ada", budget_micro=100_000_000)

    async def serve(worker: EchoWorker) -> None:
        worker.concurrency = 3
        while True:
            for work in (await worker.poll()).work:
                worker.running.append(work.id)
                await asyncio.sleep(0.003)
                assert (await worker.answer(work))[0] == 200

    serving = [asyncio.create_task(serve(worker)) for worker in workers]
    answers = await asyncio.gather(*(deployed.query(token=token) for _ in range(20)))
    for task in serving:
        task.cancel()
    assert [status for status, _, _ in answers] == [200] * 20
    found, told = await records(deployed, token), await token_of(deployed, token_id)
    assert told["queries"] == 20
    assert told["spent_micro"] == sum(each["worker_ms"] for each in found) * PRICE // 1000 >= 20 * 3 * 1000


async def test_a_cancelled_query_counts_until_it_was_cancelled(deployed: Deployed) -> None:
    worker = await priced_worker(deployed, "dear")
    token_id, token = await deployed.new_token("ada")
    ((_, waiting), (_, other)) = await submitted(deployed, token, 2)
    work = await worker.take()
    await asyncio.sleep(0.02)
    rest = next(each["id"] for each in (waiting, other) if each["id"] != work.id)
    for query in (work.id, rest, work.id):  # the second was never leased, the third is over
        await deployed.live.call("DELETE", f"{QUERIES}/{query}", key=token)
    told = await token_of(deployed, token_id)
    assert 20 * 1000 <= told["spent_micro"] <= 5_000_000
    assert told["queries"] == 0
    assert (await worker.deliver(work, b"late"))[1]["error"] in ("lease_lost", "receipt_invalid")
    assert (await token_of(deployed, token_id))["spent_micro"] == told["spent_micro"]


async def test_requests_beyond_the_minute_s_are_refused_however_many_come_at_once(deployed: Deployed) -> None:
    _, token = await deployed.new_token("ada", requests_per_minute=5)
    _, other = await deployed.new_token("ada", requests_per_minute=5)
    await deployed.worker()

    async def ask(number: int) -> tuple[int, Any]:
        if number % 2:
            return await deployed.live.call("GET", "/v1/evaluation-keys", key=token)
        status, body, _ = await deployed.query(token=token, wait="0")
        return status, msgspec.json.decode(body)

    answers = await asyncio.gather(*(ask(number) for number in range(20)))
    refused = [body for status, body in answers if status == 429]
    assert len(refused) == 15
    assert {body["error"] for body in refused} == {"rate_limited"}
    assert all(status in (200, 202) for status, _ in answers if status != 429)
    assert len(await records(deployed, other)) == 0
    assert (await deployed.live.call("GET", "/v1/evaluation-keys", key=other))[0] == 200
