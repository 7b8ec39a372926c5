"""kill -9 in the middle of everything: what was acknowledged is there, the books balance, nothing stays held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from lattice.gateway import ledger
from lattice.gateway.store import Store
from lattice.gateway.store.schema import works
from tests.support.databases import KINDS, fresh_database
from tests.support.ledger import NOW

ROOT = Path(__file__).parents[2]


def run_and_kill(url: str, lines: int) -> list[str]:
    """Start a writer, kill it once it has said enough, and return everything that it had said by then."""
    command = [sys.executable, "-m", "tests.support.crash_writer", url]
    environment = {"PYTHONPATH": f"{':'.join(sys.path)}", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    assert process.returncode == -9
    return [line for line in said if line.endswith("\n")]


def states(conn: Connection) -> dict[str, str]:
    return dict(conn.execute(select(works.c.id, works.c.state)).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lines", [1, 400, 3_000])
async def test_a_killed_writer_leaves_every_acknowledged_write_and_a_balanced_ledger(
    kind: str, lines: int, tmp_path: Path
) -> None:
    with fresh_database(kind, tmp_path) as url:
        said = run_and_kill(url, lines)
        store = await Store.open(url)
        after = await store.read(states)
        acknowledged = dict(reversed(line.split()) for line in said)  # the later line of a work wins
        assert all(after[work_id] == "completed" for work_id, what in acknowledged.items() if what == "S")
        assert all(after[work_id] in ("in_flight", "completed") for work_id in acknowledged)
        audit = await store.read(ledger.check)
        running = sum(state == "in_flight" for state in after.values())
        assert (audit.sum_micro, audit.faults, audit.held_micro) == (0, (), 100 * running)
        assert len(await store.write(ledger.recover, "gw_one", NOW)) == running
        audit = await store.read(ledger.check)
        assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())
        await store.close()
