"""Fresh databases of each kind that the store supports."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from lattice.gateway.store.engines import parse_url

POSTGRES = "LATTICE_TEST_POSTGRES"

KINDS = [
    "sqlite",
    pytest.param(
        "postgresql",
        marks=pytest.mark.skipif(
            not os.environ.get(POSTGRES),
            reason=f"{POSTGRES} is not set: give it the URL of a server on which this user may create databases",
        ),
    ),
]


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database, dropped afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'lattice.db'}"
        return
    server = parse_url(make_url(os.environ[POSTGRES]))
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
