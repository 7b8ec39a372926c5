"""What must not happen to encrypted queries: strangers' workers, late and double results, forged receipts, dead
workers, revoked tokens, and a gateway that is killed in the middle of a slice.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection

from lattice.core.clock import SystemClock
from lattice.gateway.ledger import credits
from lattice.gateway.store.database import Store
from lattice.gateway.workers.rows import get_worker
from tests.callers import fund, new_account
from tests.harness import LiveGateway, RelayRefused, running_gateway
from tests.processes import gateway_process
from tests.support.echo_worker import QUERIES, Deployed, EchoWorker, bundle
from tests.support.workers import new_worker


@pytest.fixture
async def deployed(live: LiveGateway) -> Deployed:
    return await Deployed(live).deploy()


def code(body: bytes) -> str:
    return str(msgspec.json.decode(body)["error"])


async def test_a_stranger_s_worker_gets_no_bytes_and_delivers_nothing(deployed: Deployed) -> None:
    worker, stranger = await deployed.worker(), await (await Deployed(deployed.live).deploy()).worker()
    asking = asyncio.create_task(deployed.query())
    work = await worker.take()
    for sha256 in (work.inputs, work.evaluation_keys, deployed.artefact):
        assert (await stranger.call("GET", f"blobs/{sha256}"))[0] == 404
    assert (await stranger.call("GET", "blobs/../../pepper"))[0] in (400, 404)
    status, refused = await stranger.deliver(work, bundle())
    assert (status, refused["error"]) == (409, "lease_lost")
    assert (await stranger.fail(work, "runtime_failed"))[0] == 409
    await worker.answer(work)
    assert (await asking)[0] == 200
    assert (await worker.call("GET", f"blobs/{work.inputs}"))[0] == 404  # the lease is over


@pytest.mark.parametrize("credential", ["", "rlc_nobody", "sk_lat_nobody"])
async def test_nobody_polls_without_a_worker_s_credential(deployed: Deployed, credential: str) -> None:
    with pytest.raises(RelayRefused, match="invalid_credential"):
        await EchoWorker(deployed.live, "wkr_x", credential).poll()


async def test_a_user_s_token_opens_no_other_user_s_query(deployed: Deployed) -> None:
    await deployed.worker()
    query = (await deployed.submit())["id"]
    _, other = await deployed.new_token("eve")
    stranger = await Deployed(deployed.live).deploy()
    for token in (other, stranger.token):
        for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", "")):
            status, refused = await deployed.live.call(method, f"{QUERIES}/{query}{path}", key=token)
            assert (status, refused["error"]) == (404, "not_found")
        assert (await deployed.live.call("GET", QUERIES, key=token))[1]["data"] == []
    status, body, _ = await deployed.query(token=other)  # with ada's keys
    assert (status, code(body)) == (404, "not_found")


async def test_another_account_sees_and_stops_no_worker(deployed: Deployed) -> None:
    worker = await deployed.worker()
    _, key = await new_account(deployed.live)
    for method in ("GET", "DELETE"):
        assert (await deployed.live.call(method, f"/v1/workers/{worker.id}", key=key))[0] == 404
    path = f"/v1/encrypted-models/{deployed.model}/workers"
    assert (await deployed.live.call("POST", path, {}, key=key))[0] == 404
    assert (await deployed.live.call("GET", "/v1/workers", key=key))[1]["data"] == []


async def test_a_revoked_token_runs_nothing_within_a_second(deployed: Deployed) -> None:
    await deployed.worker()
    await deployed.submit()
    path = f"/v1/encrypted-models/{deployed.model}/access-tokens/{deployed.token_id}"
    assert (await deployed.live.call("DELETE", path))[0] == 200
    await asyncio.sleep(1.0)
    status, body, _ = await deployed.query()
    assert (status, code(body)) == (401, "revoked_grant")


async def test_a_result_counts_once(deployed: Deployed) -> None:
    worker, body = await deployed.worker(), bundle()
    query = (await deployed.submit(body))["id"]
    work = await worker.take()
    assert (await worker.answer(work))[1]["state"] == "completed"
    assert (await worker.deliver(work, body))[0] == 200  # the identical call, repeated
    status, refused = await worker.deliver(work, bundle())
    assert (status, refused["error"]) == (409, "lease_lost")
    assert (await deployed.read(query))["output_bytes"] == len(body)
    token = (await deployed.live.call("GET", f"/v1/encrypted-models/{deployed.model}/access-tokens"))[1]["data"][0]
    assert token["queries"] == 1


@pytest.mark.parametrize(
    "forged",
    [
        {"outputs": "1" * 64},
        {"inputs": "1" * 64},
        {"keys": "1" * 64},
        {"attempt": 7},
        {"query": "qry_other"},
        {"database": "1" * 64},
    ],
)
async def test_a_receipt_must_be_for_these_very_bytes(deployed: Deployed, forged: dict[str, object]) -> None:
    worker = await deployed.worker()
    query = (await deployed.submit())["id"]
    work = await worker.take()
    status, refused = await worker.answer(work, **forged)
    assert (status, refused["error"]) == (502, "receipt_invalid")
    assert (await deployed.read(query))["state"] == "in_flight"
    assert (await worker.answer(work))[0] == 200


async def test_a_worker_that_dies_loses_its_query_to_another_one(deployed: Deployed) -> None:
    """Its next process takes its place with a new session; what the old one delivers comes too late."""
    one = await deployed.worker()
    body = bundle()
    asking = asyncio.create_task(deployed.query(body))
    late = await one.take()
    two = EchoWorker(deployed.live, one.id, one.credential)
    await two.activate()
    again = await two.take()
    assert (again.id, again.attempt) == (late.id, 2)
    assert (await one.poll()).stop == "superseded"
    status, refused = await one.deliver(late, body)
    assert (status, refused["error"]) == (409, "lease_lost")
    await two.answer(again)
    status, answer, _ = await asking
    assert (status, answer) == (200, body)


async def test_a_query_that_kills_two_workers_is_not_given_to_a_third(deployed: Deployed) -> None:
    worker = await deployed.worker()
    asking = asyncio.create_task(deployed.query())
    for _ in range(2):
        await worker.take()
        worker = EchoWorker(deployed.live, worker.id, worker.credential)
        await worker.activate()
    status, body, _ = await asking
    assert (status, code(body)) == (502, "runtime_failed")


async def test_a_reply_that_was_lost_is_said_again(deployed: Deployed) -> None:
    worker = await deployed.worker()
    query = (await deployed.submit())["id"]
    lost = await worker.poll()
    said = await worker.poll()  # it names nothing among what runs
    # The time that is left is told anew, and the bytes that came with the first reply are fetched now.
    timeless = [
        [msgspec.structs.replace(work, expires_in_ms=0, data=b"") for work in reply.work] for reply in (lost, said)
    ]
    assert timeless[0] == timeless[1]
    assert 0 < said.work[0].expires_in_ms <= lost.work[0].expires_in_ms
    assert [work.id for work in said.work] == [query]


async def test_a_query_fails_cleanly_where_no_other_worker_could_do_better(deployed: Deployed) -> None:
    worker = await deployed.worker()
    asking = asyncio.create_task(deployed.query())
    await worker.fail(await worker.take(), "scale_mismatch")
    status, body, _ = await asking
    assert code(body) == "scale_mismatch"
    assert status < 500
    asking = asyncio.create_task(deployed.query())
    await worker.fail(await worker.take(), "secret: 42")
    assert (await worker.take()).attempt == 2
    asking.cancel()


async def test_a_worker_that_has_stopped_does_nothing_more(deployed: Deployed) -> None:
    worker = await deployed.worker()
    await worker.poll(ending=True)
    assert (await worker.poll()).stop == "requested"
    status, body = await worker.call("GET", f"blobs/{deployed.artefact}")
    assert (status, code(body)) == (409, "worker_stopped")


async def test_a_repeat_finds_its_answer_when_worker_keys_and_budget_are_gone(deployed: Deployed) -> None:
    """The same idempotency key asks for what was paid for; it needs nothing that a new query would need."""
    worker, body, once = await deployed.worker(), bundle(), {"idempotency-key": "once"}
    asking = asyncio.create_task(deployed.query(body, headers=once))
    await worker.answer(await worker.take())
    assert (await asking)[:2] == (200, body)
    await worker.poll(ending=True)
    assert (await deployed.live.call("DELETE", f"/v1/evaluation-keys/{deployed.keys}", key=deployed.token))[0] == 204
    assert (await deployed.query(body, headers=once))[:2] == (200, body)
    status, refused, _ = await deployed.query(bundle(), headers=once)
    assert (status, code(refused)) == (409, "idempotency_conflict")
    status, refused, _ = await deployed.query(body, headers={"idempotency-key": "another"})
    assert (status, code(refused)) == (404, "not_found")


async def test_a_wall_clock_that_steps_back_expires_no_new_query(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines are set by the clock by which they are swept."""
    worker, step = await deployed.worker(), 3_600_000
    real = SystemClock.now_ms
    monkeypatch.setattr(SystemClock, "now_ms", lambda self: real(self) - step)
    query = (await deployed.submit())["id"]
    await deployed.live.gateway.workers.service.endings.sweep()
    assert (await deployed.read(query))["state"] in ("queued", "in_flight")
    assert (await worker.answer(await worker.take()))[1]["state"] == "completed"


async def test_a_worker_fetches_from_a_restarted_gateway_before_it_polls(tmp_path: Path) -> None:
    """Its lease is in the database; losing it for a 404 would cost the query an attempt."""
    async with running_gateway(tmp_path) as live:
        deployed = await Deployed(live).deploy()
        worker, body = await deployed.worker(), bundle()
        query = (await deployed.submit(body))["id"]
        work = await worker.take()
        port, secret = live.gateway.settings.port, live.secret
    async with running_gateway(tmp_path, port=port, secret=secret) as live:
        worker.live = deployed.live = live
        assert await worker.inputs(work) == body
        assert (await worker.call("GET", f"blobs/{'0' * 64}"))[0] == 404
        assert (await worker.deliver(work, body))[1]["state"] == "completed"
        assert (await deployed.read(query))["attempt"] == 1


# --- a gateway that dies -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [True, False], ids=["the worker goes on", "the worker is gone"])
async def test_kill_9_of_the_gateway_in_the_middle_of_a_slice(tmp_path: Path, comes_back: bool) -> None:
    """The time is settled exactly to what was observed, nothing stays held, and the query that ran is delivered."""
    async with gateway_process(tmp_path) as gateway:
        await fund(gateway.client, 1_000_000)
        worker = await _priced(gateway)
        await worker.activate()
        begun = time.monotonic()
        while time.monotonic() - begun < 2.5:
            await worker.poll_briefly(0.2)
        await gateway.kill()
        before = await _database(gateway, get_worker, worker.id)
        assert before.state == "active"
        assert 1_000 <= before.billed_ms <= (time.monotonic() - begun) * 1000 + 500
        await gateway.up()
        if comes_back:
            async with asyncio.timeout(20):  # a busy machine may not answer the first of them in time
                while (await _database(gateway, get_worker, worker.id)).billed_ms <= before.billed_ms:
                    await worker.poll_briefly(0.2)
            assert (await worker.poll(ending=True)).stop == "requested"
        else:
            async with asyncio.timeout(40):
                while (await _database(gateway, get_worker, worker.id)).open:
                    await asyncio.sleep(0.5)
        ended = await _database(gateway, get_worker, worker.id)
        if not comes_back:
            assert (ended.billed_ms, ended.reason) == (before.billed_ms, "failed")
        balance = await _database(gateway, credits, gateway.account)
        assert balance.available_micro == 1_000_000 - ended.billed_ms * 500 // 1000
        audit = await gateway.audit()
        assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())


async def _priced(gateway: object) -> EchoWorker:
    from lattice.gateway.identity.pepper import load_pepper

    status, model = await gateway.client.call(  # type: ignore[attr-defined]
        "POST", "/v1/encrypted-models", {"name": "m", "weights_exposure": "hosted"}
    )
    assert status == 201
    pepper = load_pepper(gateway.data / "pepper", create=False)  # type: ignore[attr-defined]
    secret = "rlc_" + os.urandom(32).hex()

    def write(conn: Connection) -> str:
        from lattice.gateway.encrypted.model_rows import get_model
        from lattice.gateway.encrypted.version_rows import NewVersion, create_version

        row = get_model(conn, gateway.account, model["id"])  # type: ignore[attr-defined]
        new = NewVersion(
            source_sha256=b"s" * 32, source_kind="artefact", calibration_sha256=None, options="{}", gateway_id="gw_x"
        )
        create_version(conn, row, new, 1)
        return new_worker(
            conn,
            gateway.account,  # type: ignore[attr-defined]
            500,
            time.time_ns() // 1_000_000,
            model_id=model["id"],
            credential_hash=pepper.hash(secret),
        ).id

    store = await Store.open(f"sqlite:///{gateway.data / 'lattice.db'}")  # type: ignore[attr-defined]
    try:
        return EchoWorker(gateway.client, await store.write(write), secret)  # type: ignore[attr-defined]
    finally:
        await store.close()


async def _database(gateway: object, read: object, *arguments: object) -> object:
    store = await Store.open(f"sqlite:///{gateway.data / 'lattice.db'}")  # type: ignore[attr-defined]
    try:
        return await store.read(read, *arguments)  # type: ignore[arg-type]
    finally:
        await store.close()
