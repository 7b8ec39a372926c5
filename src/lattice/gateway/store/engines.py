"""Engines: how a connection to each kind of database is opened and set up."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.pool import QueuePool

BUSY_TIMEOUT_MS = 5_000
READERS = 4


def writer_engine(url: URL) -> Engine:
    """An engine with a single connection, whose transactions take the write lock when they begin."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, "BEGIN IMMEDIATE", 1, ())
    return create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True, hide_parameters=True)


def reader_engine(url: URL) -> Engine:
    """An engine whose transactions each see one snapshot and cannot write."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, "BEGIN", READERS, ("PRAGMA query_only=ON",))
    return create_engine(
        url,
        pool_size=READERS,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )


def parse_url(text: str | URL) -> URL:
    """Read a database URL; plain `postgresql://` means the psycopg driver, which is the one in the extra."""
    url = make_url(text)
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def prepare_file(url: URL) -> None:
    """Create a SQLite file for its owner alone; the WAL files inherit its mode."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _sqlite(url: URL, begin: str, size: int, pragmas: tuple[str, ...]) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        _use_wal(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        for statement in pragmas:
            connection.execute(statement)

    # The driver's own transaction control starts too late for SAVEPOINT and for a consistent read.
    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite's busy timeout does not cover processes that do so at the same time."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


__all__ = ["parse_url", "prepare_file", "reader_engine", "writer_engine"]
