"""The pages about encrypted models, typed from top to bottom at a real gateway with real workers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from tests.harness import LiveGateway, running_gateway
from tests.support import docs
from tests.support.reader import Reader

DIGITS = docs.ROOT / "examples" / "models" / "mnist_mlp" / "digits.npz"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[LiveGateway]:
    async with running_gateway(tmp_path / "gateway") as live:
        yield live


async def read(live: LiveGateway, folder: Path, text: str) -> list[str]:
    """What each block printed."""
    reader = Reader(folder, live.url, live.secret)
    return await asyncio.to_thread(reader.read, text)


def truth() -> list[str]:
    with np.load(DIGITS, allow_pickle=False) as arrays:
        return [str(digit) for digit in arrays["y"][:5]]


def require_right_answers(printed: str) -> None:
    """The table of `lattice query`: sample, prediction, truth."""
    rows = re.findall(r"^(\d+) +(\d) +(\d)$", printed, re.MULTILINE)
    assert [row[1] for row in rows] == [row[2] for row in rows] == truth(), printed


def require_right_lines(printed: str) -> None:
    """`decrypted … truth …`"""
    said, true = re.search(r"decrypted ([\d ]+) truth ([\d ]+)", printed).groups()  # type: ignore[union-attr]
    assert said.split() == true.split() == truth()[: len(true.split())], printed


async def require_paid_worker(live: LiveGateway) -> None:
    """A worker ran and was paid for, and the ledger is whole."""
    _, found = await live.call("GET", "/v1/worker-sessions")
    assert found["data"]
    assert all(worker["active_at_ms"] is not None for worker in found["data"])
    audit = await live.audit()
    assert (audit.sum_micro, audit.faults) == (0, ())


async def test_the_readme(live: LiveGateway, tmp_path: Path) -> None:
    text = (docs.ROOT / "README.md").read_text("utf-8")
    deployed, asked = await read(live, tmp_path, docs.section(text, "Models on encrypted data"))
    assert "version 1 is ready" in deployed
    require_right_answers(asked)
    await require_paid_worker(live)


async def test_the_tutorial(live: LiveGateway, tmp_path: Path) -> None:
    text = (docs.DOCS / "tutorial" / "first-encrypted-model.md").read_text("utf-8")
    _, _, checked, _, deployed, _, _, asked, program, costs = await read(live, tmp_path, text)
    assert "can run encrypted" in checked
    assert "version 1 is ready" in deployed
    require_right_answers(asked)
    require_right_lines(program)
    assert "worker_charge" in costs
    await require_paid_worker(live)


async def test_the_how_to(live: LiveGateway, tmp_path: Path) -> None:
    text = (docs.DOCS / "how-to" / "encrypted-service.md").read_text("utf-8")
    parts = [docs.section(text, heading) for heading in ("The provider", "The end user", "What runs, and what it cost")]
    deployed, scripted, asked, program, steps, stopped = await read(live, tmp_path, "\n".join(parts))
    assert "version 1 is ready" in deployed
    assert re.search(r"wkr_\w+ is active\nit ran for \d+ ms and cost \d+ micro-credits", scripted)
    require_right_answers(asked)
    require_right_lines(program)
    require_right_lines(steps)
    assert "Stopping wkr_" in stopped
    await require_paid_worker(live)
