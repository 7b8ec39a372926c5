"""A gateway and a daemon as processes of their own, started as an operator and an owner start them.

Each is ended, or killed, by the id of the process that the test started.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from lattice.gateway.ledger import Audit, check
from lattice.gateway.store.database import Store
from lattice.runtime.pairing import redeem
from lattice.runtime.state import StateDir
from tests.harness import GatewayClient

START_SECONDS = 30.0
STOP_SECONDS = 30.0


class Child:
    """A `python -m` process with its standard error in a file."""

    def __init__(self, name: str, folder: Path, **environment: str) -> None:
        self.name = name
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.started_at_ms = 0
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, module: str, *arguments: str) -> asyncio.subprocess.Process:
        """Start it; its log goes on where an earlier start left off."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "HOME": str(self.folder),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **self._environment,
        }
        self.started_at_ms = time.time_ns() // 1_000_000
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        return self._process

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """`kill -9`: no handler runs, nothing is flushed."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int:
        """SIGTERM, and wait for the drain; the exit status."""
        return await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.send_signal(number)
        try:
            return await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise

    async def stop(self) -> None:
        """End it if it runs."""
        if self.running:
            await self.kill()

    def logged(self) -> str:
        """Everything that it has written."""
        return self.log.read_text(errors="replace")


class GatewayProcess(Child):
    """`lattice up`. A restart keeps the port and the data."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession, **settings: str) -> None:
        environment = {f"LATTICE_GATEWAY_{name.upper()}": value for name, value in settings.items()}
        super().__init__("gateway", folder, **environment)
        self.data = folder / "data"
        self.client = GatewayClient("", "", http)
        self.account = ""
        self._port = "0"

    async def up(self) -> GatewayClient:
        """Start it and wait until it serves."""
        arguments = ("up", "--port", self._port, "--data-dir", str(self.data), "--json")
        process = await self.start("lattice.cli.main", *arguments)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        assert line, self.logged()
        ready = json.loads(line)
        self.client.url = ready["url"]
        self._port = ready["url"].rpartition(":")[2]
        if "key" in ready:
            self.client.secret, self.account = ready["key"], ready["account"]
        return self.client

    async def audit(self) -> Audit:
        """The ledger's own check, from the database itself."""
        store = await Store.open(f"sqlite:///{self.data / 'lattice.db'}")
        try:
            return await store.read(check)
        finally:
            await store.close()


class DaemonProcess(Child):
    """`lattice-ctl daemon run` on a machine that answers with a model server of the test's."""

    def __init__(self, gateway: GatewayProcess, engine_url: str, kind: str = "personal", name: str = "machine") -> None:
        self.state = StateDir(gateway.folder / f"{name}-state")
        super().__init__(
            name,
            gateway.folder,
            LATTICE_STATE_DIR=str(self.state.root),
            LATTICE_ENGINE__KIND="openai",
            LATTICE_ENGINE__BASE_URL=engine_url,
            LATTICE_ENGINE__CONCURRENCY="16",
            LATTICE_LOCAL_API__ENABLED="false",
            LATTICE_LOG__LEVEL="debug",
            LATTICE_LOG__FORMAT="json",
        )
        self.gateway = gateway
        self.kind = kind
        self.runtime = ""

    @property
    def model(self) -> str:
        """The public model id of a personal machine."""
        return f"lattice:personal:{self.runtime}"

    async def pair(self) -> str:
        """Make the record, mint a token, redeem it as `lattice-ctl relay connect` does; returns the token."""
        client = self.gateway.client
        base = f"/v1/{self.kind}-runtimes"
        made = (await client.call("POST", base, {"name": self.name}))[1]
        minted = (await client.call("POST", f"{base}/{made['id']}/bootstrap-tokens", {}))[1]
        await redeem(client.url, minted["token"], self.state)
        self.runtime = made["id"]
        return str(minted["token"])

    async def run(self) -> None:
        """Start it and wait until the gateway sees it with a model."""
        await self.start("lattice.cli.ctl", "daemon", "run")
        await self.reachable()

    async def view(self) -> dict[str, Any]:
        """The runtime's record."""
        path = f"/v1/{self.kind}-runtimes/{self.runtime}"
        record: dict[str, Any] = (await self.gateway.client.call("GET", path))[1]
        return record

    async def reachable(self) -> None:
        """Return when this very process has polled this very gateway process, with a model."""
        since = max(self.started_at_ms, self.gateway.started_at_ms)
        async with asyncio.timeout(START_SECONDS):
            while True:
                assert self.running, self.logged()
                view = await self.view()
                if view["state"] == "reachable" and view["models"] and (view["last_seen_ms"] or 0) > since:
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def gateway_process(folder: Path, **settings: str) -> AsyncIterator[GatewayProcess]:
    """A gateway process that ends with the block."""
    async with aiohttp.ClientSession() as http:
        gateway = GatewayProcess(folder, http, **settings)
        await gateway.up()
        try:
            yield gateway
        finally:
            await gateway.stop()


@asynccontextmanager
async def daemon_process(
    gateway: GatewayProcess, engine_url: str, kind: str = "personal"
) -> AsyncIterator[DaemonProcess]:
    """A paired daemon process that polls and ends with the block."""
    daemon = DaemonProcess(gateway, engine_url, kind)
    await daemon.pair()
    try:
        await daemon.run()
        yield daemon
    finally:
        await daemon.stop()
