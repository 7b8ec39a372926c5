from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, bindparam, create_engine, event, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from lattice.core.errors import LatticeError
from lattice.gateway.identity import create_account, list_accounts
from lattice.gateway.store import Store, engines
from lattice.gateway.store.errors import is_conflict, is_outage
from lattice.gateway.store.migrate import HEAD
from lattice.gateway.store.prepared import Prepared
from lattice.gateway.store.schema import accounts
from tests.support.ledger import NOW


async def test_the_files_are_for_their_owner_alone(store: Store, tmp_path: Path) -> None:
    await store.write(create_account, "x", NOW)
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert files == {"lattice.db": 0o600, "lattice.db-wal": 0o600, "lattice.db-shm": 0o600}


async def test_sqlite_is_set_up_for_durability(store: Store) -> None:
    def pragmas(conn: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await store.write(pragmas) == ["wal", 2, 1, 5000]


async def test_what_waits_is_committed_together(store: Store) -> None:
    """A hundred writes that were queued behind one share one commit, and none of them waited for more to come."""
    commits = []
    engine = store._engines[0]
    event.listen(engine, "commit", lambda conn: commits.append(1))
    hold = threading.Event()
    first = asyncio.ensure_future(store.write(lambda conn: hold.wait(5)))
    await asyncio.sleep(0.05)
    others = [asyncio.ensure_future(store.write(create_account, f"n{i}", NOW)) for i in range(100)]
    await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(first, *others)
    assert len(commits) == 2


async def test_a_failed_commit_fails_every_write_in_it_and_the_next_one_works(store: Store) -> None:
    engine = store._engines[0]

    def refuse(conn: Connection) -> None:
        raise OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))

    event.listen(engine, "commit", refuse)
    writes = [store.write(create_account, f"n{i}", NOW) for i in range(5)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [getattr(result, "code", None) for result in results] == ["store_unavailable"] * 5
    event.remove(engine, "commit", refuse)
    await store.write(create_account, "after", NOW)
    assert [row.name for row in await store.read(list_accounts)] == ["after"]


async def test_a_write_whose_caller_left_before_it_began_is_not_run(store: Store) -> None:
    hold = threading.Event()
    first = asyncio.ensure_future(store.write(lambda conn: hold.wait(5)))
    await asyncio.sleep(0.05)
    gone = asyncio.ensure_future(store.write(create_account, "gone", NOW))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    hold.set()
    await first
    assert await store.read(list_accounts) == []


async def test_writes_may_come_from_several_event_loops(store: Store) -> None:
    await asyncio.gather(
        *[asyncio.to_thread(lambda i=i: asyncio.run(store.write(create_account, f"n{i}", NOW))) for i in range(4)],
        store.write(create_account, "here", NOW),
    )
    assert len(await store.read(list_accounts)) == 5


async def test_a_locked_or_broken_database_is_store_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_MS", 50)
    path = tmp_path / "lattice.db"
    store = await Store.open(f"sqlite:///{path}")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LatticeError) as caught:
        await store.write(create_account, "x", NOW)
    assert (caught.value.code, caught.value.status) == ("store_unavailable", 503)
    other.execute("ROLLBACK")
    other.close()
    await store.write(create_account, "x", NOW)
    await store.close()
    path.write_bytes(b"this is not a database" * 500)
    with pytest.raises(LatticeError, match="store_unavailable"):
        await Store.open(f"sqlite:///{path}")


async def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'lattice.db'}"
    store = await Store.open(url)
    await store.write(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '9999'")) and None)
    await store.close()
    with pytest.raises(LatticeError, match="config_invalid"):
        await Store.open(url)


def test_head_is_the_newest_revision() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "lattice.gateway.store:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_a_current_database_opens_without_alembic(tmp_path: Path) -> None:
    code = f"""
import asyncio, sys
from lattice.gateway.store import Store
async def main():
    await (await Store.open("sqlite:///{tmp_path / "lattice.db"}")).close()
asyncio.run(main())
print("alembic" in sys.modules)
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout.strip() for run in runs] == ["True", "False"]


def test_prepared_statements_start_a_transaction_and_report_errors_like_sqlalchemy(conn: Connection) -> None:
    add = Prepared(insert(accounts), ("id", "name", "created_at_ms"))
    find = Prepared(select(accounts.c.name).where(accounts.c.id == bindparam("account")))
    row = {"id": "acc_1", "name": "canary", "created_at_ms": 1}
    engine = create_engine("sqlite://")
    with engine.connect() as fresh:
        accounts.create(fresh)
        fresh.commit()
        assert add.change(fresh, row) == 1
        assert fresh.in_transaction()
        assert find.row(fresh, {"account": "acc_1"}) == ("canary",)
        assert find.row(fresh, {"account": "acc_2"}) is None
        with pytest.raises(IntegrityError) as caught:
            add.change(fresh, row)
    assert "canary" not in str(caught.value)
    assert is_conflict(caught.value)
    assert not is_outage(caught.value)
    with pytest.raises(OperationalError) as broken:
        Prepared(text("SELECT nothing FROM nowhere")).row(conn, {})
    assert is_outage(broken.value)
