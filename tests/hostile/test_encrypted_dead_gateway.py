"""A gateway that stays dead: a worker that is not its child ends by its own clock, and is billed for what was seen.

The worker is a real process with a credential of its own, on the books of another gateway that never comes back: this
one may not restart it, only settle it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from lattice.gateway.identity.pepper import load_pepper
from lattice.gateway.store.database import Store
from lattice.gateway.workers.drivers import CREDENTIAL
from lattice.gateway.workers.rows import WorkerRow, get_worker
from lattice.runtime.worker.clock import EXIT_UNPAID
from tests.support.encrypted_stack import PRICE, Stack, encrypted_stack, right, wanted
from tests.support.workers import new_worker

pytestmark = pytest.mark.slow


async def worker_row(stack: Stack, secret: str) -> str:
    """A priced worker that another gateway started; its id."""
    pepper = load_pepper(stack.gateway.data / "pepper", create=False)

    def write(conn: Connection) -> str:
        now = time.time_ns() // 1_000_000
        facts = {"model_id": stack.model, "credential_hash": pepper.hash(secret), "gateway_id": "gw_other"}
        return new_worker(conn, stack.gateway.account, PRICE, now, **facts).id

    store = await Store.open(f"sqlite:///{stack.gateway.data / 'lattice.db'}")
    try:
        return await store.write(write)
    finally:
        await store.close()


@asynccontextmanager
async def worker_elsewhere(stack: Stack, folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """`lattice-ctl worker run`, nobody's child but the test's, active."""
    secret = "rlc_" + os.urandom(32).hex()
    worker = await worker_row(stack, secret)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), CREDENTIAL: secret}
    command = [sys.executable, "-m", "lattice.cli.ctl", "worker", "run", "--gateway", stack.back.url]
    process = await asyncio.create_subprocess_exec(
        *command, "--cache", str(folder), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while (await stack.read(get_worker, worker)).state != "active":
                assert process.returncode is None
                await asyncio.sleep(0.1)
        yield worker, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ended(stack: Stack, worker: str) -> WorkerRow:
    """The row once the gateway has settled it."""
    async with asyncio.timeout(60):
        while True:
            row: WorkerRow = await stack.read(get_worker, worker)
            if not row.open:
                return row
            await asyncio.sleep(0.2)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with encrypted_stack(tmp_path / "stack", workers=0) as stack:
        yield stack


@pytest.mark.timeout(240)
async def test_a_worker_of_a_gateway_that_stays_dead_stops_when_its_paid_time_is_over(
    stack: Stack, tmp_path: Path
) -> None:
    async with worker_elsewhere(stack, tmp_path / "cache") as (worker, process):
        token = await stack.new_token("alice")
        run = await stack.ask(token["secret"], tmp_path / "alice")
        assert run.said is not None
        assert right(run.said["values"], wanted()), run
        await stack.gateway.kill()
        before = await stack.read(get_worker, worker)
        assert process.returncode is None, "it may go on while it is paid"
        assert await asyncio.wait_for(process.wait(), 60) == EXIT_UNPAID
        # The proxy saw the last reply before the worker did; the rest is what a busy machine takes to end a process.
        assert time.time() <= max(lease.until for lease in stack.leases[worker]) + 2
        await stack.gateway.up()
        row = await ended(stack, worker)
        assert (row.reason, row.billed_ms, row.held_micro) == ("failed", before.billed_ms, 0)
        await stack.require_true_books()
        audit = await stack.gateway.audit()
        assert audit.held_micro == 0


@pytest.mark.timeout(240)
async def test_a_worker_elsewhere_goes_on_after_a_short_death_of_its_gateway(stack: Stack, tmp_path: Path) -> None:
    """The same process, the same session, the same row; the books know of each second once."""
    async with worker_elsewhere(stack, tmp_path / "cache") as (worker, process):
        token = await stack.new_token("alice")
        for _ in range(2):
            await stack.gateway.kill()
            await stack.gateway.up()
        run = await stack.ask(token["secret"], tmp_path / "alice")
        assert run.said is not None
        assert right(run.said["values"], wanted()), run
        row = await stack.read(get_worker, worker)
        assert (row.state, row.restarts) == ("active", 0)
        assert process.returncode is None
        await stack.require_true_books()
