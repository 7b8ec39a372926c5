"""Fixtures that more than one kind of test needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness import LiveGateway, ScriptedRuntime, running_gateway


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    """A gateway on a loopback port, with a fresh SQLite database."""
    async with running_gateway(tmp_path / "gateway") as running:
        yield running


@pytest.fixture
async def runtime(live: LiveGateway) -> ScriptedRuntime:
    """A paired personal runtime whose every step the test decides."""
    return await ScriptedRuntime(live).pair()
