"""Workers, their money and the queue of queries mean the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from lattice.core.errors import LatticeError
from lattice.gateway import ledger
from lattice.gateway.encrypted.evaluation_key_rows import NewKeys, register_keys
from lattice.gateway.encrypted.event_rows import events_after
from lattice.gateway.encrypted.model_rows import ModelRow, NewModel, create_model
from lattice.gateway.encrypted.token_rows import NewToken, TokenRecord, create_token
from lattice.gateway.identity import Pepper
from lattice.gateway.queries import desk
from lattice.gateway.queries import rows as query_rows
from lattice.gateway.queries.desk import Body, Taken
from lattice.gateway.queries.rows import Delivery, QueryRow, Seat
from lattice.gateway.queries.target import Wanted
from lattice.gateway.store import Store
from lattice.gateway.store.encrypted_schema import access_tokens
from lattice.gateway.workers import billing, rollout
from lattice.gateway.workers.deliveries import _deliver_and_lease
from lattice.gateway.workers.fleet import Need, _needs
from lattice.gateway.workers.hardware import HardwareClass, ensure_default, find_class, list_classes, put_class
from lattice.gateway.workers.link import WorkerLink
from lattice.gateway.workers.rollout import Offer, Programs, Step
from lattice.gateway.workers.routes import _statement
from lattice.gateway.workers.rows import WorkerRow, list_workers, open_workers, worker_by_credential
from lattice.gateway.workers.standing import asked_version
from tests.support.databases import KINDS, fresh_database
from tests.support.ledger import NOW, account
from tests.support.workers import add_version, new_worker


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with fresh_database(request.param, tmp_path) as url:
        opened = await Store.open(url)
        yield opened
        await opened.close()


def model_of(conn: Connection, owner: str) -> ModelRow:
    """A model with a version that is ready."""
    model = create_model(conn, NewModel(account_id=owner, name="m", weights_exposure="hosted"), NOW)
    add_version(conn, model, b"a" * 32)
    return model


def user_of(conn: Connection, model: ModelRow) -> TokenRecord:
    """A token with keys."""
    pepper = Pepper(bytes(32))
    new = NewToken(account_id=model.account_id, model_id=model.id, name="t", user="ada", budget_micro=1_000)
    keys = NewKeys(
        account_id=model.account_id,
        model_id=model.id,
        user="ada",
        parameters_id="par",
        keys_hash=b"k" * 32,
        blob_sha256=b"e" * 32,
        public_key_sha256=b"p" * 32,
        size=1,
    )
    register_keys(conn, keys, NOW)
    return create_token(conn, pepper, new, NOW)[0]


async def test_two_workers_of_one_wallet_never_overdraw_it(store: Store) -> None:
    """Their contacts come at the same time; the last credits go to whoever comes first, and the books agree."""

    def begin(conn: Connection) -> tuple[str, list[str]]:
        owner = account(conn, 40_000)
        return owner.id, [new_worker(conn, owner.id, 1_000, NOW).id for _ in range(3)]

    owner, ids = await store.write(begin)
    now, ended = NOW, set[str]()
    for _ in range(12):
        now += 2_500
        rows = await asyncio.gather(
            *(store.write(billing.contact, worker, "s", True, now) for worker in ids if worker not in ended)
        )
        ended |= {row.id for row in rows if row.state == "stopped"}
    for worker in ids:
        await store.write(billing.end, worker, "failed", now)
    found = await store.read(list_workers, owner)
    audit = await store.read(ledger.check)
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())
    spent = sum(row.billed_micro for row in found)
    assert (await store.read(ledger.credits, owner)).available_micro == 40_000 - spent
    assert 39_000 < spent <= 40_000
    statement = await store.read(_statement, owner)
    assert (statement.worker_micro, statement.granted_micro, statement.other_micro) == (spent, 40_000, 0)
    assert "credits_exhausted" in {row.reason for row in found}


async def test_a_query_goes_through_its_leases(store: Store) -> None:
    def begin(conn: Connection) -> tuple[ModelRow, TokenRecord, list[str]]:
        owner = account(conn, 1_000)
        model = model_of(conn, owner.id)
        workers = [new_worker(conn, owner.id, 0, NOW, model_id=model.id).id for _ in range(2)]
        return model, user_of(conn, model), workers

    model, token, (one, two) = await store.write(begin)
    wanted = Wanted(evaluation_keys=None, verify=2, database=None)
    await store.read(desk.check, token, wanted)
    body = Body(os.urandom(32), 10)
    row: QueryRow = (await store.write(desk.submit, token, wanted, body, None, NOW, NOW + 60_000)).row
    assert [each.queries for each in await store.read(query_rows.waiting)] == [1]
    assert (await store.read(_needs))[0] == {model.id: Need(1, {1: 1})}

    async def lease(worker: str) -> list[int]:
        found = await store.write(query_rows.lease, worker, model.id, 1, 2, frozenset(), NOW)
        return [each.row.attempt for each in found]

    assert await lease(one) == [1]
    assert await lease(two) == []
    await store.write(query_rows.renew, one, NOW + 10)
    done = Delivery(row.id, one, 1, b"o" * 32, 5, b"r")
    assert (await store.write(query_rows.deliver, done, NOW + 20)).state == "queued"
    assert await lease(one) == []
    assert await lease(two) == [2]
    late = Delivery(row.id, one, 1, b"x" * 32, 5, b"r")
    with pytest.raises(LatticeError, match="lease_lost"):
        await store.write(query_rows.deliver, late, NOW + 30)
    same = Delivery(row.id, two, 2, b"o" * 32, 5, b"r")
    ended = await store.write(query_rows.deliver, same, NOW + 30)
    assert (ended.state, ended.measured()["worker_ms"]) == ("completed", 50)
    assert await store.write(query_rows.forget_queries, NOW) == 0
    assert await store.write(query_rows.forget_queries, NOW + 1) == 1


async def test_a_query_that_finds_a_seat_is_leased_as_it_is_queued(store: Store) -> None:
    """And is only queued where the seat's worker was stopped meanwhile, or runs another version."""

    def begin(conn: Connection) -> tuple[TokenRecord, list[str]]:
        owner = account(conn, 1_000_000)
        model = model_of(conn, owner.id)
        workers = [new_worker(conn, owner.id, 0, NOW, model_id=model.id).id for _ in range(2)]
        for worker in workers:
            billing.contact(conn, worker, "s", True, NOW)
        return user_of(conn, model), workers

    token, (one, two) = await store.write(begin)
    wanted = Wanted(evaluation_keys=None, verify=1, database=None)

    async def submit(seat: Seat | None) -> Taken:
        return await store.write(desk.submit, token, wanted, Body(b"i" * 32, 9), None, NOW, NOW + 60_000, seat)

    taken = await submit(Seat(one, 1))
    assert taken.leased is not None
    assert taken.leased.row == taken.row == await store.read(query_rows.get_query, taken.row.id)
    assert (taken.row.state, taken.row.attempt, taken.row.worker_id) == ("in_flight", 1, one)
    assert (taken.row.measured(), taken.row.lease_expires_ms) == ({"queue_ms": 0, "leased_at_ms": NOW}, NOW + 60_000)
    assert taken.leased == (await store.read(query_rows.leased_to, one))[0]
    await store.write(billing.stop, one, "requested", NOW)
    for seat in (None, Seat(one, 1), Seat(two, 2)):
        again = await submit(seat)
        assert (again.leased, again.row.state, again.row.worker_id) == (None, "queued", None)
        assert again.row == await store.read(query_rows.get_query, again.row.id)
    assert (await submit(Seat(two, 1))).row.worker_id == two


async def test_a_delivery_hands_over_the_next_query_unless_its_worker_is_to_stop(store: Store) -> None:
    def begin(conn: Connection) -> tuple[TokenRecord, WorkerRow]:
        owner = account(conn, 1_000_000)
        model = model_of(conn, owner.id)
        worker = new_worker(conn, owner.id, 1_000, NOW, model_id=model.id)
        return user_of(conn, model), billing.contact(conn, worker.id, "s", True, NOW)

    token, row = await store.write(begin)
    link = WorkerLink(row)
    wanted = Wanted(evaluation_keys=None, verify=1, database=None)
    asked = [
        (await store.write(desk.submit, token, wanted, Body(bytes([n]) * 32, 9), None, NOW + n, NOW + 60_000)).row.id
        for n in range(3)
    ]
    (first,) = await store.write(query_rows.lease, row.id, row.model_id, 1, 1, frozenset(), NOW)
    waited = Delivery(first.row.id, row.id, 1, b"o" * 32, 5, b"r", NOW + 30)
    done, (second,) = await store.write(_deliver_and_lease, waited, 1_000, link, 1, NOW + 50)
    assert (done.state, done.id, second.row.id) == ("completed", *asked[:2])
    assert (done.measured()["queue_ms"], done.measured()["worker_ms"]) == (30, 20), "its turn came after 30 ms"
    assert (await store.read(_spent, token.id)) == 20
    await store.write(billing.stop, row.id, "requested", NOW)
    last = Delivery(second.row.id, row.id, 1, b"o" * 32, 5, b"r")
    done, leased = await store.write(_deliver_and_lease, last, 1_000, link, 1, NOW + 60)
    assert (done.state, leased) == ("completed", [])


def _spent(conn: Connection, token_id: str) -> int:
    return int(conn.execute(select(access_tokens.c.spent_micro).where(access_tokens.c.id == token_id)).scalar_one())


async def test_what_nobody_ends_is_swept(store: Store) -> None:
    def begin(conn: Connection) -> tuple[TokenRecord, str, str]:
        owner = account(conn, 1_000)
        model = model_of(conn, owner.id)
        worker = new_worker(conn, owner.id, 0, NOW, model_id=model.id, credential_hash=b"h" * 32).id
        return user_of(conn, model), model.id, worker

    token, model, worker = await store.write(begin)
    wanted = Wanted(evaluation_keys=None, verify=1, database=None)
    for now, until in ((NOW - 1, NOW + 100_000), (NOW, NOW + 10_000)):
        await store.write(desk.submit, token, wanted, Body(b"i" * 32, 1), None, now, until)
    assert len(await store.write(query_rows.lease, worker, model, 1, 1, frozenset(), NOW)) == 1
    swept = await store.write(query_rows.sweep, NOW + 61_000)
    assert {(each.after.state, each.after.reason) for each in swept} == {("queued", None), ("expired", "query_expired")}
    assert (await store.read(worker_by_credential, b"h" * 32)).id == worker  # type: ignore[union-attr]
    gone = await store.write(billing.lapse, NOW + 200_000)
    assert [(row.id, row.reason) for row in gone] == [(worker, "failed")]
    assert await store.read(open_workers) == []
    ended = await store.write(query_rows.end_open, token.account_id, "credits_exhausted", NOW)
    assert [row.reason for row in ended] == ["credits_exhausted"]


# --- versions ------------------------------------------------------------------------------------------------

NEW = b"n" * 32
LOADED = Programs(loaded=frozenset({"61" * 32, NEW.hex()}))


class Rollout:
    """A model of version 1 with active workers, whose every contact is one transaction as a poll's is."""

    def __init__(self, store: Store) -> None:
        self.store, self.now = store, NOW

    async def begin(self, workers: int) -> Rollout:
        def make(conn: Connection) -> tuple[ModelRow, TokenRecord, list[str]]:
            owner = account(conn, 1_000)
            model = model_of(conn, owner.id)
            made = [new_worker(conn, owner.id, 0, NOW, model_id=model.id).id for _ in range(workers)]
            return model, user_of(conn, model), made

        self.model, self.token, self.workers = await self.store.write(make)
        for worker in self.workers:
            await self.contact(worker)
        return self

    async def contact(self, worker: str, said: Programs = Programs(), active: bool = True) -> Step:
        self.now += 10

        def beat(conn: Connection) -> Step:
            return rollout.step(conn, billing.contact(conn, worker, "s", active, self.now), said, self.now)

        return await self.store.write(beat)

    async def upload(self, artefact: bytes = NEW, interface: bytes = b"i" * 32) -> int:
        return await self.store.write(add_version, self.model, artefact, interface)

    async def ask(self, version: int | None = None, verify: int = 1) -> QueryRow:
        wanted = Wanted(evaluation_keys=None, verify=verify, database=None, version=version)
        until = NOW + 60_000
        taken = await self.store.write(desk.submit, self.token, wanted, Body(b"i" * 32, 1), None, self.now, until)
        return taken.row

    async def lease(self, worker: str, version: int) -> list[str]:
        given = (worker, self.model.id, version, 8, frozenset[str](), self.now)
        return [each.row.id for each in await self.store.write(query_rows.lease, *given)]

    async def read(self, query: QueryRow) -> QueryRow:
        return await self.store.read(query_rows.get_query, query.id)


async def test_the_last_worker_of_a_version_stays_until_its_queue_is_empty(store: Store) -> None:
    """Where the new version cannot evaluate what was encrypted for the old one."""
    going = await Rollout(store).begin(2)
    one, two = going.workers
    old = await going.ask()
    assert await going.upload(interface=b"j" * 32) == 2
    offer = (await going.contact(one)).offer
    assert offer == Offer(2, NEW.hex())
    assert (await going.contact(one, LOADED)).row.version == 2, "another worker is there for the old queue"
    stays = await going.contact(two, LOADED)
    assert (stays.row.version, stays.row.next_version, stays.offer) == (1, 2, offer)
    assert (await going.ask()).version == 2
    with pytest.raises(LatticeError, match="version_replaced"):
        await going.ask(version=1)
    assert await going.lease(two, 1) == [old.id]
    left = await going.contact(two, LOADED)
    assert (left.row.version, left.row.next_version, left.offer, left.moved) == (2, None, None, [])
    assert (await going.read(old)).version == 1, "what runs ends on the old program"


async def test_a_queue_goes_along_where_the_new_version_takes_it(store: Store) -> None:
    going = await Rollout(store).begin(1)
    (one,) = going.workers
    asked = {(await going.ask(version=1)).id for _ in range(3)}
    await going.upload()
    left = await going.contact(one, LOADED)
    assert (left.row.version, {row.id for row in left.moved}) == (2, asked)
    assert await going.lease(one, 1) == []
    assert set(await going.lease(one, 2)) == asked
    assert (await going.ask(version=1)).version == 2


async def test_both_opinions_of_a_verified_query_are_of_one_version(store: Store) -> None:
    going = await Rollout(store).begin(2)
    one, two = going.workers
    asked = await going.ask(verify=2)
    assert await going.lease(one, 1) == [asked.id]
    await store.write(query_rows.deliver, Delivery(asked.id, one, 1, b"o" * 32, 5, b"r"), NOW)
    await going.upload()
    assert (await going.contact(two, LOADED)).row.version == 2
    moved = await going.read(asked)
    assert (moved.version, moved.state, moved.output_sha256, moved.attempt) == (2, "queued", None, 1)


async def test_new_queries_meet_what_is_served_until_the_next_version_is_loaded(store: Store) -> None:
    going = await Rollout(store).begin(1)
    await going.upload(interface=b"j" * 32)
    assert (await going.ask()).version == 1
    assert (await store.read(asked_version, going.model.id, None)).number == 1
    (one,) = going.workers
    await going.contact(one, LOADED)
    assert (await going.ask()).version == 2
    assert (await store.read(asked_version, going.model.id, None)).number == 2


async def test_what_cannot_be_loaded_is_told_once_and_not_offered_again(store: Store) -> None:
    going = await Rollout(store).begin(1)
    (one,) = going.workers
    await going.upload()
    broken = Programs(rejected=NEW.hex(), reason="artefact_invalid")
    for _ in range(3):
        found = await going.contact(one, broken)
        assert (found.row.version, found.row.failed_version, found.offer) == (1, 2, None)
    events = [row.kind for row in await store.read(events_after, going.model.id, "")]
    assert events.count("worker.version_failed") == 1
    assert (await going.ask()).version == 1
    await going.upload(b"m" * 32)
    assert (await going.contact(one, broken)).offer == Offer(3, "6d" * 32)


async def test_a_worker_that_made_room_for_a_broken_version_gets_the_old_one_back(store: Store) -> None:
    going = await Rollout(store).begin(1)
    (one,) = going.workers
    await going.upload()
    switched = await going.contact(one, Programs(frozenset({"61" * 32}), no_room=NEW.hex()))
    assert (switched.row.version, switched.ready) == (2, False)
    asked = await going.ask()
    assert asked.version == 2
    back = await going.contact(one, Programs(rejected=NEW.hex(), reason="MemoryError"), active=False)
    assert (back.row.version, back.row.failed_version, back.offer) == (1, 2, None)
    assert [row.id for row in await store.write(rollout.rehome)] == [asked.id]
    assert (await going.read(asked)).version == 1


async def test_queues_without_a_worker_find_one_of_another_version(store: Store) -> None:
    """Its last worker was stopped, or died for good."""
    going = await Rollout(store).begin(2)
    one, two = going.workers
    asked = await going.ask()
    await going.upload()
    assert (await going.contact(one, LOADED)).row.version == 2
    assert await store.write(rollout.rehome) == []
    await store.write(billing.end, two, "failed", going.now)
    assert [row.id for row in await store.write(rollout.rehome)] == [asked.id]
    assert await going.lease(one, 2) == [asked.id]


async def test_hardware_classes_are_set_and_read(store: Store) -> None:
    await store.write(ensure_default)
    dear = HardwareClass("gpu", 10**9, 8, 1)
    for _ in range(2):
        await store.write(put_class, dear)
    assert [each.name for each in await store.read(list_classes)] == ["small", "gpu"]
    assert (await store.read(find_class, None)).name == "small"
    with pytest.raises(LatticeError, match="not_found"):
        await store.read(find_class, "none")
    with pytest.raises(LatticeError, match="invalid_request"):
        await store.write(put_class, HardwareClass("own", 1, 1, 1))
