"""Encrypted queries over HTTP with a worker that computes nothing: every path from submit to result, and its money."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from lattice.core.worker_relay import RECEIPT_HEADER
from lattice.sealing.worker_receipt import read_worker_receipt
from tests.callers import balance, fund
from tests.harness import LiveGateway
from tests.support.echo_worker import QUERIES, Deployed, EchoWorker, bundle, priced_worker


@pytest.fixture
async def deployed(live: LiveGateway) -> Deployed:
    return await Deployed(live).deploy()


@asynccontextmanager
async def serving(*workers: EchoWorker) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(worker.serve()) for worker in workers]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_a_synchronous_query_comes_back_with_its_receipt_and_its_timing(deployed: Deployed) -> None:
    worker, body = await deployed.worker(), bundle(3, 10_000)
    async with serving(worker):
        status, answer, headers = await deployed.query(body)
    assert (status, answer) == (200, body)
    receipt = read_worker_receipt(headers[RECEIPT_HEADER])
    assert receipt.query == headers["x-lattice-query"]
    assert receipt.identity == worker.identity.public.text
    assert {part.partition(";")[0] for part in headers["server-timing"].split(", ")} == {
        "body",
        "queue",
        "worker",
        "total",
    }
    record = await deployed.read(receipt.query)
    assert (record["state"], record["attempt"], record["reason"]) == ("completed", 1, None)


async def test_small_inputs_come_with_their_work_to_whoever_takes_them_so(deployed: Deployed) -> None:
    """Once: a reply that was lost is repeated without them. Neither large ones nor those of another worker do."""
    worker, other = await deployed.worker(inline=True), await deployed.worker()
    small, large = bundle(1, 1000), bundle(1, 3 << 20)
    waiting = asyncio.create_task(worker.poll())
    await asyncio.sleep(0.3)  # it is held, so the query goes out with it
    asking = asyncio.create_task(deployed.query(small))
    (work,) = (await waiting).work
    assert work.data == small
    (again,) = (await worker.poll()).work  # it has not heard of the query, as far as the gateway can know
    assert (again.id, again.data) == (work.id, b"")
    assert await worker.inputs(again) == small
    worker.running.append(work.id)
    assert (await worker.answer(work))[0] == 200
    assert (await asking)[:2] == (200, small)
    for taker, body in ((worker, large), (other, small)):
        asking = asyncio.create_task(deployed.query(body))
        work = await taker.take()
        assert work.data == b""
        assert (await taker.answer(work))[0] == 200
        assert (await asking)[:2] == (200, body)
        if taker is worker:
            await deployed.live.call("DELETE", f"/v1/workers/{worker.id}")


@pytest.mark.parametrize("wrong", [{"wait": "2"}, {"verify": "3"}])
async def test_a_parameter_that_is_none_is_refused(deployed: Deployed, wrong: dict[str, str]) -> None:
    status, answer, _ = await deployed.query(**wrong)
    assert (status, msgspec.json.decode(answer)["error"]) == (400, "invalid_request")
    assert next(iter(wrong)) in msgspec.json.decode(answer)["message"]


async def test_an_asynchronous_query_is_polled_and_its_result_read_twice(deployed: Deployed) -> None:
    worker, body = await deployed.worker(), bundle()
    query = (await deployed.submit(body))["id"]
    path = f"{QUERIES}/{query}/result"
    assert (await deployed.live.call("GET", path, key=deployed.token))[0] == 202
    await worker.answer(await worker.take())
    headers = {"authorization": f"Bearer {deployed.token}"}
    for _ in range(2):
        async with deployed.live.http.get(deployed.live.url + path, headers=headers) as response:
            assert (response.status, await response.read()) == (200, body)
    listed = (await deployed.live.call("GET", QUERIES, key=deployed.token))[1]["data"]
    assert [each["id"] for each in listed] == [query]


async def test_events_tell_every_state(deployed: Deployed) -> None:
    worker = await deployed.worker()
    query = (await deployed.submit())["id"]
    seen = []
    headers = {"authorization": f"Bearer {deployed.token}"}
    async with deployed.live.http.get(f"{deployed.live.url}{QUERIES}/{query}/events", headers=headers) as response:
        async for line in response.content:
            if line.startswith(b"event: "):
                seen.append(line[7:-1].decode())
                if seen == ["queued"]:
                    await worker.answer(await worker.take())
    assert seen == ["queued", "in_flight", "completed"] or seen == ["queued", "completed"]


async def test_many_callers_share_two_workers(deployed: Deployed) -> None:
    workers = [await deployed.worker(concurrency=2) for _ in range(2)]
    bodies = [bundle(1, 100) for _ in range(12)]
    async with serving(*workers):
        answers = await asyncio.gather(*(deployed.query(body) for body in bodies))
    assert [answer[:2] for answer in answers] == [(200, body) for body in bodies]


async def test_an_idempotency_key_runs_a_query_once(deployed: Deployed) -> None:
    worker, body, headers = await deployed.worker(), bundle(), {"idempotency-key": "one"}
    async with serving(worker):
        first = await deployed.query(body, headers=headers)
        again = await deployed.query(body, headers=headers)
        other = await deployed.query(bundle(), headers=headers)
    assert (first[0], again[0]) == (200, 200)
    assert first[2]["x-lattice-query"] == again[2]["x-lattice-query"]
    assert (other[0], msgspec.json.decode(other[1])["error"]) == (409, "idempotency_conflict")
    assert len((await deployed.live.call("GET", QUERIES, key=deployed.token))[1]["data"]) == 1


async def test_a_cancelled_query_is_taken_from_its_worker(deployed: Deployed) -> None:
    worker = await deployed.worker()
    query = (await deployed.submit())["id"]
    work = await worker.take()
    ended = (await deployed.live.call("DELETE", f"{QUERIES}/{query}", key=deployed.token))[1]
    assert (ended["state"], ended["reason"]) == ("cancelled", "work_cancelled")
    assert (await worker.poll()).cancel == (query,)
    status, refused = await worker.deliver(work, bundle())
    assert (status, refused["error"]) == (409, "lease_lost")


async def test_a_caller_that_goes_away_cancels_its_query(deployed: Deployed) -> None:
    worker = await deployed.worker()
    asking = asyncio.create_task(deployed.query())
    work = await worker.take()
    asking.cancel()
    reply = await worker.poll()
    assert reply.cancel == (work.id,)
    assert (await deployed.read(work.id))["state"] == "cancelled"


async def test_a_verified_query_runs_on_two_workers_that_must_agree(deployed: Deployed) -> None:
    one, two = await deployed.worker(), await deployed.worker()
    body = bundle()
    async with serving(one, two):
        status, answer, _ = await deployed.query(body, verify="2")
    assert (status, answer) == (200, body)


async def test_a_verified_query_whose_results_differ_delivers_neither(deployed: Deployed) -> None:
    one, two = await deployed.worker(), await deployed.worker()
    asking = asyncio.create_task(deployed.query(verify="2"))
    takes = [asyncio.create_task(worker.take()) for worker in (one, two)]
    await asyncio.wait(takes, return_when=asyncio.FIRST_COMPLETED)
    first, second = (0, 1) if takes[0].done() else (1, 0)
    workers = (one, two)
    assert (await workers[first].answer(takes[first].result()))[0] == 200
    assert await workers[first].poll_briefly() is None or not workers[first].running  # never the same worker again
    assert (await workers[second].answer(await takes[second], bundle()))[1]["state"] == "failed"
    status, body, _ = await asking
    assert (status, msgspec.json.decode(body)["error"]) == (502, "results_differ")


async def test_without_a_worker_a_query_is_refused_before_its_body_is_read(deployed: Deployed) -> None:
    status, body, _ = await deployed.query()
    assert (status, msgspec.json.decode(body)["error"]) == (409, "worker_unavailable")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "blob_invalid"),
        (b"\x01\0\0\0", "blob_invalid"),
        (bundle() + b"x", "blob_invalid"),
        (bundle()[:-1], "blob_invalid"),
    ],
)
async def test_what_is_not_a_bundle_is_refused_before_it_is_queued(deployed: Deployed, body: bytes, code: str) -> None:
    await deployed.worker()
    status, answer, _ = await deployed.query(body)
    assert (status, msgspec.json.decode(answer)["error"]) == (400, code)
    assert (await deployed.live.call("GET", QUERIES, key=deployed.token))[1]["data"] == []


async def test_a_token_reaches_its_budget(deployed: Deployed) -> None:
    """The budget counts the time of workers that cost something, by the gateway's clock."""
    await fund(deployed.live, 10_000_000)
    await deployed.live.call(
        "PUT", "/v1/hardware-classes/dear", {"micro_per_second": 1_000_000, "cores": 1, "memory_mib": 1}
    )
    worker = await priced_worker(deployed, "dear")
    _, token = await deployed.new_token("ada", budget_micro=1)
    asking = asyncio.create_task(deployed.query(token=token))
    work = await worker.take()
    await asyncio.sleep(0.05)
    await worker.answer(work)
    assert (await asking)[0] == 200
    status, body, _ = await deployed.query(token=token)
    assert (status, msgspec.json.decode(body)["error"]) == (402, "budget_reached")


async def test_time_is_billed_from_the_first_active_poll_to_the_goodbye(deployed: Deployed) -> None:
    live = deployed.live
    await fund(live, 10_000_000)
    worker = await priced_worker(deployed, "small")
    available, held = await balance(live)
    assert (available, held) == (10_000_000 - 7_500, 7_500)  # a slice and the reserve at 500 a second
    status, statement = await live.call("GET", "/v1/credits/statement")
    assert (status, statement["micro_per_second"], statement["remaining_seconds"]) == (200, 500, 20_000)
    await asyncio.sleep(0.3)
    stopping = (await live.call("DELETE", f"/v1/workers/{worker.id}"))[1]
    assert (stopping["state"], stopping["reason"]) == ("stopping", "requested")
    assert (await worker.poll()).stop == "requested"
    assert (await worker.poll(ending=True)).stop == "requested"
    ended = (await live.call("GET", f"/v1/workers/{worker.id}"))[1]
    assert (ended["state"], ended["reason"]) == ("stopped", "requested")
    assert 250 < ended["billed_ms"] < 3_000
    assert ended["billed_micro"] == ended["billed_ms"] * 500 // 1000
    assert await balance(live) == (10_000_000 - ended["billed_micro"], 0)
    audit = await live.audit()
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())
    entries = (await live.call("GET", f"/v1/ledger/entries?work={worker.id}"))[1]["data"]
    assert {entry["kind"] for entry in entries} == {"worker_hold", "worker_charge", "worker_release"}
    assert sum(entry["amount_micro"] for entry in entries) == 0
    sessions = (await live.call("GET", "/v1/worker-sessions"))[1]["data"]
    assert [each["id"] for each in sessions] == [worker.id]
    assert (await live.call("GET", "/v1/workers"))[1]["data"] == []


async def test_at_zero_the_worker_stops_within_its_reserve_and_queries_end_unpaid(deployed: Deployed) -> None:
    """With credits for the reserve and a second, the worker hears of it in a second and has five left."""
    live = deployed.live
    await fund(live, 500 * 5 + 500)
    worker = await priced_worker(deployed, "small")
    asking = asyncio.create_task(deployed.query())
    work = await worker.take()
    waiting = await deployed.submit()
    reply = await worker.poll()
    while reply.stop is None:
        assert reply.work == ()
        reply = await worker.poll()
    assert reply.stop == "credits_exhausted"
    assert 4_000 < reply.paid_for_ms <= 5_000
    assert (await worker.poll(ending=True)).stop == "credits_exhausted"
    status, body, _ = await asking
    assert (status, msgspec.json.decode(body)["error"]) == (402, "credits_exhausted")
    for query in (work.id, waiting["id"]):
        async with asyncio.timeout(5):
            while (await deployed.read(query))["state"] not in ("failed",):
                await asyncio.sleep(0.02)
        assert (await deployed.read(query))["reason"] == "credits_exhausted"
    ended = (await live.call("GET", f"/v1/workers/{worker.id}"))[1]
    assert (ended["state"], ended["reason"]) == ("stopped", "credits_exhausted")
    assert sum(await balance(live)) == 3_000 - ended["billed_micro"] >= 0
    status, body, _ = await deployed.query()
    refused = msgspec.json.decode(body)
    assert (status, refused["error"]) == (402, "credits_exhausted"), "also what is asked after the end"
    assert "provider" in refused["message"]
    assert not any(letter.isdigit() for letter in refused["message"]), "the balance is none of the user's business"
    await fund(live, 10_000_000)
    status, body, _ = await deployed.query()
    assert (status, msgspec.json.decode(body)["error"]) == (409, "worker_unavailable")
    assert (await live.audit()).faults == ()


async def test_a_worker_cannot_be_started_without_credits(deployed: Deployed) -> None:
    path = f"/v1/encrypted-models/{deployed.model}/workers"
    status, refused = await deployed.live.call("POST", path, {"hardware_class": "small"})
    assert (status, refused["error"]) == (402, "credits_exhausted")


async def test_weights_that_stay_at_home_run_on_no_hosted_worker(deployed: Deployed) -> None:
    await deployed.live.call("PATCH", f"/v1/encrypted-models/{deployed.model}", {"weights_exposure": "own"})
    path = f"/v1/encrypted-models/{deployed.model}/workers"
    status, refused = await deployed.live.call("POST", path, {"hardware_class": "small"})
    assert (status, refused["error"]) == (409, "worker_unavailable")
    status, made = await deployed.live.call("POST", path, {})
    assert (status, made["data"][0]["hardware_class"]) == (201, "own")
    assert made["data"][0]["credential"].startswith("rlc_")


async def test_top_ups_are_grants_of_an_administrator(live: LiveGateway) -> None:
    headers = {"idempotency-key": "t"}
    for _ in range(2):
        status, made = await live.call("POST", "/v1/credits/top-ups", {"amount_micro": 70}, headers=headers)
        assert (status, made["available_micro"]) == (201, 70)
    plain = await live.new_key(scopes=["lattice:credits:read"])
    status, refused = await live.call("POST", "/v1/credits/top-ups", {"amount_micro": 70}, key=plain)
    assert (status, refused["error"]) == (403, "insufficient_scopes")
