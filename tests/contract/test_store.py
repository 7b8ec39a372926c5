"""What every store must do, whichever database is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, select, text

from lattice.core.errors import LatticeError
from lattice.gateway import ledger, works
from lattice.gateway.idempotency import Claim, StoredReply, take
from lattice.gateway.identity import create_account, list_accounts
from lattice.gateway.ledger import Grant
from lattice.gateway.runtimes.rows import create_runtime, get_runtime, set_verified
from lattice.gateway.store import Store
from lattice.gateway.store.engines import parse_url, writer_engine
from lattice.gateway.store.schema import accounts
from lattice.gateway.store.tables import metadata
from tests.support.databases import KINDS, fresh_database
from tests.support.ledger import NOW, account, admission, ending, settlement


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with fresh_database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = await Store.open(url)
    yield opened
    await opened.close()


def fail_late(conn: Connection) -> None:
    create_account(conn, "must not stay", NOW)
    raise LatticeError("credits_exhausted")


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(accounts.c.name)).scalars())


async def test_a_write_returns_its_value_and_is_seen_by_the_next_read(store: Store) -> None:
    made = await store.write(create_account, "first", NOW)
    assert await store.read(list_accounts) == [made]


async def test_a_failing_write_undoes_itself_and_harms_no_neighbour(store: Store) -> None:
    writes = [
        store.write(fail_late) if number % 3 == 0 else store.write(create_account, f"n{number}", NOW)
        for number in range(60)
    ]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert all(isinstance(result, LatticeError) == (number % 3 == 0) for number, result in enumerate(results))
    assert await store.read(names) == {f"n{number}" for number in range(60) if number % 3}


async def test_a_broken_statement_harms_no_neighbour(store: Store) -> None:
    def broken(conn: Connection) -> None:
        create_account(conn, "must not stay", NOW)
        conn.execute(text("SELECT nothing FROM nowhere"))

    def duplicate(conn: Connection) -> None:
        conn.execute(accounts.insert(), [{"id": "acc_same", "name": "twice", "created_at_ms": NOW}] * 2)

    results = await asyncio.gather(
        store.write(create_account, "before", NOW),
        store.write(broken),
        store.write(duplicate),
        store.write(create_account, "after", NOW),
        return_exceptions=True,
    )
    assert [isinstance(result, Exception) for result in results] == [False, True, True, False]
    assert await store.read(names) == {"before", "after"}


async def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)read-?only|store_unavailable"):
        await store.read(create_account, "nobody", NOW)
    assert await store.read(names) == set()


async def test_migrations_make_exactly_the_schema(store: Store, url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = writer_engine(parse_url(url))
    with engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        checks = {name: {str(c["name"]) for c in inspect(conn).get_check_constraints(name)} for name in metadata.tables}
        indexes = {name: {i["name"] for i in inspect(conn).get_indexes(name)} for name in metadata.tables}
    engine.dispose()
    assert checks["wallets"] == {"ck_wallets_available", "ck_wallets_held"}
    assert "uq_entries_grant" in indexes["entries"]


async def test_opening_again_keeps_everything(store: Store, url: str) -> None:
    await store.write(create_account, "kept", NOW)
    await store.close()
    again = await Store.open(url)
    assert await again.read(names) == {"kept"}
    await again.close()


async def test_several_gateways_may_open_an_empty_database_at_once(url: str) -> None:
    stores = await asyncio.gather(*[Store.open(url) for _ in range(4)])
    await asyncio.gather(*[opened.write(create_account, f"n{i}", NOW) for i, opened in enumerate(stores)])
    assert await stores[0].read(names) == {"n0", "n1", "n2", "n3"}
    for opened in stores:
        await opened.close()


async def test_closing_drains_and_then_refuses(store: Store) -> None:
    writes = [asyncio.ensure_future(store.write(create_account, f"n{number}", NOW)) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert len({made.id for made in await asyncio.gather(*writes)}) == 50
    with pytest.raises(LatticeError, match="store_unavailable"):
        await store.write(create_account, "late", NOW)
    with pytest.raises(LatticeError, match="store_unavailable"):
        await store.read(names)
    await store.close()


async def test_money_moves_the_same_way(store: Store) -> None:
    owner = await store.write(account, 1_000)
    claim = Claim(b"s" * 32, b"m" * 32)
    first = admission(owner.id, 300, claim=claim)
    second = admission(owner.id, 300, spend_cap_micro=550)
    third = admission(owner.id, 200, leased=False)
    assert (await store.write(ledger.admit, first)).attempt == 1
    with pytest.raises(LatticeError, match="spend_cap_reached"):
        await store.write(ledger.admit, second)
    with pytest.raises(LatticeError, match="credits_exhausted"):
        await store.write(ledger.admit, admission(owner.id, 701))
    assert (await store.write(ledger.admit, third)).attempt == 0
    assert await store.read(ledger.credits, owner.id) == ledger.Credits(500, 500)
    done = settlement(first.work_id, 120, claim=claim, result=b"sealed", status=200)
    assert (await store.write(ledger.settle, done)).charged_micro == 120
    with pytest.raises(LatticeError, match="lease_lost"):
        await store.write(ledger.settle, done)
    assert await store.write(works.lease, third.work_id, "gw_one", NOW + 60_000) == 1
    partial = settlement(third.work_id, 900, completion_tokens=3)
    charged = await store.write(ledger.settle_partial, partial, "cancelled", "disconnected")
    assert charged.charged_micro == 200
    assert await store.read(ledger.credits, owner.id) == ledger.Credits(680, 0)
    assert await store.read(ledger.key_spend, "key_one") == 320
    assert (await store.write(take, claim, None, NOW)) == StoredReply(200, b"sealed")
    entries = await store.read(ledger.list_entries, owner.id, None, 50, first.work_id)
    assert [row.amount_micro for row in reversed(entries)] == [-300, 300, -300, 120, 180]
    audit = await store.read(ledger.check)
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())


async def test_repeats_reaping_and_recovery(store: Store) -> None:
    owner = await store.write(account, 1_000)
    lost = admission(owner.id, 100, lease_expires_ms=NOW + 10)
    left = admission(owner.id, 100, gateway_id="gw_two")
    failed = admission(owner.id, 100)
    for request in (lost, left, failed):
        await store.write(ledger.admit, request)
    assert [gone.work_id for gone in await store.write(ledger.reap, NOW + 10)] == [lost.work_id]
    assert [gone.work_id for gone in await store.write(ledger.recover, "gw_two", NOW)] == [left.work_id]
    assert await store.write(ledger.void, ending(failed.work_id))
    assert (await store.write(ledger.admit, failed)).attempt == 2
    with pytest.raises(LatticeError, match="idempotency_in_flight"):
        await store.write(ledger.admit, failed)
    with pytest.raises(LatticeError, match="lease_lost"):
        await store.write(ledger.settle, settlement(failed.work_id, 10, attempt=1))
    await store.write(ledger.settle, settlement(failed.work_id, 10, attempt=2))
    assert await store.read(ledger.credits, owner.id) == ledger.Credits(990, 0)


async def test_a_burst_never_overspends(store: Store) -> None:
    owner = await store.write(account, 1_000)
    results = await asyncio.gather(
        *[store.write(ledger.admit, admission(owner.id, 30)) for _ in range(100)], return_exceptions=True
    )
    assert sum(isinstance(result, LatticeError) for result in results) == 100 - 33
    assert await store.read(ledger.credits, owner.id) == ledger.Credits(10, 990)


async def test_two_gateways_share_one_balance_and_one_grant(store: Store, url: str) -> None:
    """Different writers on one database: conflicts are retried, and neither money nor a claim is taken twice."""
    other = await Store.open(url)
    owners = [await store.write(account, 900, f"o{number}") for number in range(2)]
    claim = Claim(b"c" * 32, b"m" * 32)

    def busy(conn: Connection, order: int) -> None:
        for owner in owners[::order]:  # opposite orders, so that on PostgreSQL the batches deadlock
            ledger.admit(conn, admission(owner.id, 10))

    gift = Grant(account_id=owners[0].id, amount_micro=100, reference="once", now_ms=NOW)
    jobs = [place.write(busy, order) for _ in range(60) for place, order in ((store, 1), (other, -1))]
    jobs += [place.write(ledger.grant, gift) for place in (store, other, store, other)]  # type: ignore[misc]
    jobs += [place.write(take, claim, None, NOW) for place in (store, other)]  # type: ignore[misc]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    granted, claimed = results[120:124], results[124:]
    assert sorted(granted, key=str) == [False, False, False, True]
    assert [str(result)[:21] for result in claimed if result is not None] == ["idempotency_in_flight"]
    spent = 10 * sum(result is None for result in results[:120])
    assert spent > 0
    assert all(
        isinstance(result, LatticeError) and result.code == "credits_exhausted" for result in results[:120] if result
    )
    assert await store.read(ledger.credits, owners[1].id) == ledger.Credits(900 - spent, spent)
    audit = await store.read(ledger.check)
    assert (audit.sum_micro, audit.faults) == (0, ())
    await other.close()


async def test_a_boolean_and_bytes_survive(store: Store) -> None:
    owner = await store.write(create_account, "someone", NOW)
    made = await store.write(create_runtime, owner.id, "personal", "laptop", NOW)
    await store.write(set_verified, owner.id, made.id)
    row = await store.read(get_runtime, made.id)
    assert row.verified is True
    assert row.identity_key is None


async def test_the_error_of_a_database_holds_no_parameters(store: Store) -> None:
    def leak(conn: Connection) -> None:
        rows = [{"id": "acc_same", "name": "canary-secret", "created_at_ms": NOW}] * 2
        conn.execute(accounts.insert(), rows)

    with pytest.raises(Exception) as caught:
        await store.write(leak)
    assert "canary-secret" not in str(caught.value)
