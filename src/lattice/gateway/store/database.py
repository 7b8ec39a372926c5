"""`Store`: the async door to the database. Writes go to the one writer, reads to a small pool of threads.

Everything behind it is a plain function that takes a SQLAlchemy `Connection` first, so the same code runs on SQLite and
on PostgreSQL, in a test without a store, and inside another write's transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, Connection, Engine

from lattice.gateway.store.engines import READERS, parse_url, prepare_file, reader_engine, writer_engine
from lattice.gateway.store.errors import translate, unavailable
from lattice.gateway.store.migrate import migrate
from lattice.gateway.store.writer import Job, Writer

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """An open database. Use `await Store.open(url)`; close it to drain what is queued."""

    def __init__(self, writer_engine: Engine, reader_engine: Engine) -> None:
        self._engines = (writer_engine, reader_engine)
        self._writer = Writer(writer_engine)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="lattice-reader")
        self._closed = False

    @classmethod
    async def open(cls, url: str | URL) -> Store:
        """Open `url`, creating and migrating the database; raises `store_unavailable` where it does not answer."""
        return await asyncio.to_thread(cls._open, parse_url(url))

    @classmethod
    def _open(cls, url: URL) -> Store:
        try:
            prepare_file(url)
            writing, reading = writer_engine(url), reader_engine(url)
            migrate(writing)
        except Exception as error:
            raise translate(error) from error
        return cls(writing, reading)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)` and return its value once it is durable.

        What `fn` raises undoes its own statements only. A write whose caller is cancelled before it started is not run.
        """
        if self._closed:
            raise unavailable()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._writer.submit(Job(loop, future, fn, args, kwargs))
        return await future

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(connection, …)` on a snapshot that cannot be written to."""
        if self._closed:
            raise unavailable()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, fn, args, kwargs)

    def _read(self, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        try:
            with self._engines[1].connect() as conn, conn.begin():
                return fn(conn, *args, **kwargs)
        except Exception as error:
            raise translate(error) from error

    async def close(self) -> None:
        """Finish what is queued, then let go of the database. Later calls raise `store_unavailable`."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._readers.shutdown()
        for engine in self._engines:
            engine.dispose()
