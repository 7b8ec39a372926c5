from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from lattice.gateway.identity import Pepper
from lattice.gateway.store import Store
from tests.support.ledger import memory


@pytest.fixture
def conn() -> Iterator[Connection]:
    with memory() as connection:
        yield connection


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite:///{tmp_path / 'lattice.db'}")
    yield opened
    await opened.close()


@pytest.fixture
def pepper() -> Pepper:
    return Pepper(bytes(range(32)))
