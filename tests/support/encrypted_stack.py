"""Gateway, workers and end users as processes of their own, with a counting proxy on each of the two ways in.

    end user ── front ──┐
                        ├── gateway ── starts ── workers
    worker  ── back  ───┘

`books` reads from the database itself what must hold at every moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import numpy as np
from sqlalchemy import Connection, select

from lattice.client.management import ManagementClient
from lattice.core.worker_relay import WorkerReply
from lattice.fhe.run import Session
from lattice.gateway.ledger import credits
from lattice.gateway.queries.rows import QueryRow
from lattice.gateway.store.database import Store
from lattice.gateway.store.encrypted_schema import access_tokens, encrypted_queries, uploads
from lattice.gateway.workers.rows import WorkerRow, list_workers
from lattice.gateway.workers.slices import DRAIN_MS
from tests.processes import GatewayProcess
from tests.support import compiled as tiny
from tests.support.byte_proxy import ByteProxy, Exchange, Place, Trap, byte_proxy
from tests.support.encrypted_asker import SAMPLES
from tests.support.platform import artefact_bytes

GRANT = 100_000_000
PRICE = 1_000
MODEL = "tiny"
ORPHAN_SECONDS = 6.0
"""A worker sees the end of its parent's pipe at once; starting Python on a busy machine takes the rest."""


class FixedPort(GatewayProcess):
    """A gateway that tells its workers another address than the one that it listens on."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession, port: int, public_url: str) -> None:
        super().__init__(folder, http, public_url=public_url)
        self._fixed = self._port = str(port)

    async def up(self) -> Any:
        """Start it and wait until it serves; the test itself talks to it directly."""
        client = await super().up()
        self._port, client.url = self._fixed, f"http://127.0.0.1:{self._fixed}"
        return client

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def reap(self) -> None:
        """It was killed: wait for the kernel to say so."""
        assert self._process is not None
        await self._process.wait()


class Run(NamedTuple):
    """What an end user's process came to: None where it was killed."""

    said: dict[str, Any] | None
    status: int


class Lease(NamedTuple):
    """What one poll's reply paid for, in Unix seconds."""

    begun: float
    until: float


class Stack:
    """Everything, and what it has promised so far."""

    def __init__(self, gateway: FixedPort, front: ByteProxy, back: ByteProxy) -> None:
        self.gateway, self.front, self.back = gateway, front, back
        self.leases: dict[str, list[Lease]] = {}
        self.model = ""
        self._asker: asyncio.subprocess.Process | None = None
        back.on_exchange = self._leased

    # --- set up --------------------------------------------------------------------------------------------

    async def deploy(self, workers: int = 1) -> None:
        """A model that is ready, credits, and workers that are active."""
        await asyncio.to_thread(self._deploy)
        if workers:
            await self.start_workers(workers)

    def _deploy(self) -> None:
        path = self.gateway.folder / "tiny.lattice"
        path.write_bytes(artefact_bytes())
        with self.provider() as provider:
            provider.grant_credits(self.gateway.account, GRANT, "test")
            provider.set_hardware_class("small", micro_per_second=PRICE, cores=1, memory_mib=2048)
            self.model = provider.create_encrypted_model(MODEL, weights_exposure="hosted")["id"]
            version = provider.upload_model(MODEL, path)
            provider.wait_ready(MODEL, version["version"], timeout_s=60)

    def provider(self) -> ManagementClient:
        """The owner's client, past the proxies."""
        return ManagementClient(self.gateway.client.url, self.gateway.client.secret)

    async def start_workers(self, count: int = 1) -> list[str]:
        """Start workers and wait until they are active; their ids."""

        def start() -> list[str]:
            with self.provider() as provider:
                rows = provider.workers.start(MODEL, hardware_class="small", count=count)
                for row in rows:
                    provider.workers.wait_active(row["id"], timeout_s=60)
                return [row["id"] for row in rows]

        return await asyncio.to_thread(start)

    async def new_token(self, user: str) -> dict[str, Any]:
        """An end user's token: its id and its secret."""

        def make() -> dict[str, Any]:
            with self.provider() as provider:
                return provider.tokens.create(MODEL, user, user=user)

        return await asyncio.to_thread(make)

    # --- end users -----------------------------------------------------------------------------------------

    async def ask(self, token: str, folder: Path, *options: str, seconds: float = 60) -> Run:
        """One run of an end user's process."""
        process = await self.start_asker(token, folder, *options)
        try:
            out, _ = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        status = process.returncode or 0
        return Run(json.loads(out) if status == 0 else None, status)

    async def start_asker(self, token: str, folder: Path, *options: str) -> asyncio.subprocess.Process:
        """An end user's process."""
        environment = {
            **os.environ,
            "LATTICE_ACCESS_TOKEN": token,
            "LATTICE_CLIENT_HOME": str(folder / "home"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("ab") as log:
            self._asker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.encrypted_asker", self.front.url, str(folder), *options,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, env=environment,
            )  # fmt: skip
        return self._asker

    # --- kills ---------------------------------------------------------------------------------------------

    def set_trap(self, place: Place, victim: str) -> Trap:
        """Kill somebody (`gateway`, `worker`, `client`) there, or cut the `wire` alone."""
        proxy = self.back if place.route.startswith("relay") or "/relay/" in place.route else self.front
        act: dict[str, Callable[[], None]] = {
            "gateway": lambda: os.kill(self.gateway.pid, signal.SIGKILL),
            "worker": self.kill_workers,
            "client": self._kill_asker,
            "wire": lambda: None,
        }
        proxy.trap = Trap(place, act[victim])
        return proxy.trap

    def clear_traps(self) -> None:
        """Nothing happens any more."""
        self.front.trap = self.back.trap = None

    def kill_workers(self) -> None:
        """`kill -9` of every worker process of this stack."""
        for pid in self.worker_pids():
            os.kill(pid, signal.SIGKILL)

    def _kill_asker(self) -> None:
        if self._asker is not None and self._asker.returncode is None:
            self._asker.kill()

    def worker_pids(self) -> list[int]:
        """Every process of this machine that works for this stack's address, whoever its parent is."""
        return [pid for pid, words in processes() if self.back.url in words and "worker" in words]

    async def until_no_worker(self) -> None:
        """The gateway is dead: so are its workers, a moment later."""
        try:
            async with asyncio.timeout(ORPHAN_SECONDS):
                while self.worker_pids():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"workers outlived their gateway: {self.worker_pids()}") from None

    async def mend(self, victim: str) -> None:
        """Bring back what was killed. Workers are the fleet's business, not the test's."""
        if victim == "gateway":
            await self.gateway.reap()
            await self.until_no_worker()
            await self.gateway.up()

    # --- what must hold ------------------------------------------------------------------------------------

    def _leased(self, exchange: Exchange) -> None:
        if not exchange.line.endswith("/v1/relay/worker/poll"):
            return
        try:
            reply = msgspec.json.decode(exchange.answer.body, type=WorkerReply)
        except msgspec.MsgspecError:
            return
        if reply.paid_for_ms:
            lease = Lease(exchange.started, time.time() + reply.paid_for_ms / 1000)
            self.leases.setdefault(reply.worker, []).append(lease)

    def leased_ms(self, worker: str) -> float:
        """The time that replies have paid for, as the proxy saw them pass; overlaps once."""
        total, end = 0.0, 0.0
        for lease in sorted(self.leases.get(worker, [])):
            total += max(0.0, lease.until - max(lease.begun, end))
            end = max(end, lease.until)
        return total * 1000

    async def read(self, fn: Callable[..., Any], *arguments: Any) -> Any:
        """From the database itself."""
        store = await Store.open(f"sqlite:///{self.gateway.data / 'lattice.db'}")
        try:
            return await store.read(fn, *arguments)
        finally:
            await store.close()

    async def queries(self, token_id: str) -> list[QueryRow]:
        """A token's queries."""

        def rows(conn: Connection) -> list[QueryRow]:
            found = conn.execute(select(encrypted_queries).where(encrypted_queries.c.token_id == token_id))
            return [QueryRow(*row) for row in found]

        found: list[QueryRow] = await self.read(rows)
        return found

    async def token_counts(self, token_id: str) -> tuple[int, int]:
        """Queries that a token was charged for, and what they cost of its budget."""
        columns = access_tokens.c
        row = await self.read(
            lambda conn: conn.execute(select(columns.queries, columns.spent_micro).where(columns.id == token_id)).one()
        )
        return int(row[0]), int(row[1])

    async def require_true_books(self) -> None:
        """Sums, wallets, and worker time within what was leased; nobody below zero."""
        audit = await self.gateway.audit()
        assert (audit.sum_micro, audit.faults) == (0, ())
        rows: list[WorkerRow]
        rows, wallet = await self.read(
            lambda conn: (
                list_workers(conn, self.gateway.account, limit=1000),
                credits(conn, self.gateway.account),
            )
        )
        assert wallet.available_micro >= 0
        assert wallet.held_micro == sum(row.held_micro for row in rows)
        assert wallet.available_micro + wallet.held_micro == GRANT - sum(row.billed_micro for row in rows)
        for row in rows:
            assert row.billed_micro == row.billed_ms * PRICE // 1000
            assert row.billed_ms <= self.leased_ms(row.id) + 500 * (1 + row.restarts), row
            if row.paid_until_ms is not None and row.last_seen_ms is not None:
                assert row.last_seen_ms <= row.paid_until_ms + DRAIN_MS, row

    async def require_no_leftovers(self) -> None:
        """No half of a file where no upload or compilation is under way."""
        data = self.gateway.data
        open_uploads = await self.read(
            lambda conn: set(conn.execute(select(uploads.c.id).where(uploads.c.state == "open")).scalars())
        )
        left = [path.name for path in (data / "uploads").iterdir() if path.name not in open_uploads]
        left += [str(path) for folder in ("blobs/incoming", "compiling") for path in (data / folder).glob("*")]
        assert left == []


def wanted() -> np.ndarray:
    """The values that every answer has, up to the noise."""
    return np.asarray(Session(tiny.compiled()).run(SAMPLES).values)


def right(values: Any, truth: np.ndarray) -> bool:
    """Whether an answer is the true one."""
    return bool(np.abs(np.asarray(values) - truth).max() < 1e-3)


def processes() -> list[tuple[int, list[str]]]:
    """Every live process with its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append((int(entry.name), words))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@asynccontextmanager
async def encrypted_stack(folder: Path, workers: int = 1) -> AsyncIterator[Stack]:
    """A stack that ends with the block, whatever has become of its parts."""
    port = free_port()
    async with aiohttp.ClientSession() as http, byte_proxy(port) as front, byte_proxy(port) as back:
        gateway = FixedPort(folder, http, port, back.url)
        stack = Stack(gateway, front, back)
        try:
            await gateway.up()
            await stack.deploy(workers)
            yield stack
        finally:
            stack._kill_asker()
            await gateway.stop()
            stack.kill_workers()
