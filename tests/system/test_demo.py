"""The second act of `lattice demo`, played for real, with its money checked against the ledger's own rows.

One run without --once: while everything is up the gateway's database is read, then Ctrl-C ends it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from lattice.cli import demo_digits
from lattice.cli.demo_encrypted import GRANT, PAID_MS, PRICE, SHOWN

MARK = "DEMO_TEST_MARK"
"""An environment variable that every process of the demo inherits, and nobody else's has."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Played:
    """One performance."""

    report: dict[str, Any]
    entries: list[dict[str, Any]]
    workers: list[dict[str, Any]]
    queries: int
    running: set[int]
    remaining: set[int]
    status: int
    home: Path
    scratch: Path


def marked(mark: str) -> set[int]:
    """Processes with the mark in their environment that are not zombies."""
    wanted, found = f"{MARK}={mark}".encode(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue  # another user's, or gone meanwhile
    return found


def rows(database: Path, query: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(query)]
    finally:
        connection.close()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    scratch, home, mark = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("home"), uuid4().hex
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LATTICE_", "XDG_"))}
    path = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", "lattice.cli.main", "demo", "--json", "--only", "encrypted"],
        stdout=subprocess.PIPE,
        env={**kept, "PYTHONPATH": path, "HOME": str(home), "TMPDIR": str(scratch), MARK: mark},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the demo failed; it says why above"
        (database,) = scratch.glob("lattice-demo-*/gateway/lattice.db")
        entries = rows(database, "select * from entries order by id")
        workers = rows(database, "select * from workers")
        (count,) = rows(database, "select count(*) as queries from encrypted_queries where state = 'completed'")
        running = marked(mark)
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
        report = json.loads(line)["encrypted"]
        yield Played(report, entries, workers, count["queries"], running, marked(mark), status, home, scratch)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_what_is_decrypted_is_the_truth(played: Played) -> None:
    with np.load(demo_digits.FOLDER / "digits.npz", allow_pickle=False) as arrays:
        truth = arrays["y"][:SHOWN].tolist()
    report = played.report
    assert report["predictions"] == report["truth"] == report["clear"] == truth
    assert report["max_error"] < 0.05
    assert report["right_afterwards"] == report["answered"] - SHOWN
    assert report["answered"] == played.queries >= SHOWN


def test_credits_are_what_the_ledger_says(played: Played) -> None:
    (worker,) = played.workers
    charges = [row for row in played.entries if row["kind"] == "worker_charge" and row["work_id"] == worker["id"]]
    charged = sum(row["amount_micro"] for row in charges if row["ledger_account"] == "lattice:revenue")
    assert played.report["credits_micro"] == charged == worker["billed_micro"]
    assert charged == played.report["worker_ms"] * PRICE // 1000
    balance: dict[str, int] = defaultdict(int)
    transactions: dict[str, int] = defaultdict(int)
    for row in played.entries:
        balance[row["ledger_account"]] += row["amount_micro"]
        transactions[row["transaction_id"]] += row["amount_micro"]
        if not row["ledger_account"].startswith("lattice:"):
            assert balance[row["ledger_account"]] >= 0, row
    assert set(transactions.values()) == {0}
    assert balance[f"{worker['account_id']}:available"] == GRANT - charged == played.report["available_micro"]
    assert balance[f"{worker['account_id']}:held"] == 0


def test_the_worker_stopped_by_itself(played: Played) -> None:
    (worker,) = played.workers
    assert played.report["worker_stopped_because"] == "credits_exhausted"
    assert (worker["state"], worker["reason"]) == ("stopped", "credits_exhausted")
    assert played.report["refused_with"] in ("worker_unavailable", "credits_exhausted")
    assert PAID_MS <= worker["billed_ms"] <= PAID_MS + 5_000


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes under /proc")
def test_nothing_is_left(played: Played) -> None:
    assert len(played.running) == 2, "the demo and its gateway; the worker had ended"
    assert played.remaining == set()
    assert played.status == 130
    assert not list(played.scratch.glob("lattice-demo-*"))
    assert not (played.home / ".config" / "lattice").exists()
