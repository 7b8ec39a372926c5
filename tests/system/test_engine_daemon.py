"""The daemon as a process, handled by `lattice-ctl`: started, paired, drained, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lattice.core.clock import ManualClock, SystemClock
from lattice.runtime.machine import Pairing, save_pairing
from lattice.runtime.models import DEFAULT_MODEL, fetched_path
from tests.unit.runtime.machines import RUNTIME, FakeEngine, Machine
from tests.unit.runtime.servers import ModelServer, RelayGateway

pytestmark = pytest.mark.slow


class Owner:
    """The machine's owner at a terminal."""

    def __init__(self, root: Path, engine: str) -> None:
        self.machine = Machine(root / "state", FakeEngine(), ManualClock(SystemClock().now_ms()))
        self.config = root / "config.toml"
        self.config.write_text(f"state_dir = '{root}/state'\n[local_api]\nport = 0\n[engine]\n{engine}\n")

    async def ctl(self, *arguments: str) -> tuple[int, Any]:
        """Run a command; its exit status and its JSON."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lattice.cli.ctl",
            *arguments,
            "--json",
            "--config",
            str(self.config),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        out, _ = await process.communicate()
        return process.returncode or 0, json.loads(out)

    def pair(self, url: str) -> None:
        """As `relay connect` leaves it."""
        save_pairing(self.machine.state, Pairing(RUNTIME, url, url, "rlc_canary", "k", 1, True))

    def log(self) -> str:
        """What the daemon wrote."""
        return self.machine.state.path("daemon.log").read_text()


@contextlib.asynccontextmanager
async def started(owner: Owner) -> AsyncIterator[int]:
    code, report = await owner.ctl("daemon", "start")
    assert code == 0, report
    try:
        yield report["pid"]
    finally:
        await owner.ctl("daemon", "stop")


async def gone(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_start_serve_drain_stop(tmp_path: Path) -> None:
    server, gateway = ModelServer(), RelayGateway()
    async with server.run() as base_url, gateway.run() as url:
        owner = Owner(tmp_path, f"kind = 'openai'\nbase_url = '{base_url}'")
        owner.pair(url)
        assert await owner.ctl("daemon", "status") == (3, {"running": False, "pid": None, "local_api": None})
        async with started(owner) as pid:
            code, error = await owner.ctl("daemon", "start")
            assert (code, error["error"]) == (3, "daemon_already_running")
            code, status = await owner.ctl("status")
            assert (code, status["pid"], status["relay"]["state"]) == (0, pid, "connected")
            sealed = owner.machine.seal(
                {"model": "x", "messages": [{"role": "user", "content": "canary"}]}, stream=True
            )
            gateway.hand_over(owner.machine.lease(sealed))
            work_id = sealed.envelope.parsed.work_id
            await gateway.until(lambda: gateway.finished(work_id))
            answer = owner.machine.open(sealed, gateway.frames_of(work_id))
            assert answer.trailer.usage.completion_tokens == 4
            server.slow = True
            hanging = owner.machine.seal({"model": "x", "messages": [{"role": "user", "content": "canary"}]})
            gateway.hand_over(owner.machine.lease(hanging))
            while len(server.bodies) < 2:
                await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGTERM)
            await gateway.until(lambda: any(poll.draining for poll in gateway.polls))
            assert alive(pid)
            os.kill(pid, signal.SIGTERM)
            await gone(lambda: not alive(pid))
            assert [failure.requeue for failure in gateway.fails] == [True]
        assert "canary" not in owner.log()


async def test_a_killed_daemon_leaves_no_lock_and_starts_again_with_its_keys(tmp_path: Path) -> None:
    server, gateway = ModelServer(), RelayGateway()
    async with server.run() as base_url, gateway.run() as url:
        owner = Owner(tmp_path, f"kind = 'openai'\nbase_url = '{base_url}'")
        owner.pair(url)
        async with started(owner) as pid:
            os.kill(pid, signal.SIGKILL)
            await gone(lambda: not alive(pid))
            assert (await owner.ctl("status"))[0] == 3
        async with started(owner):
            await gateway.until(lambda: len(gateway.announcements) >= 2)
            keys = [announcement.key_configs for announcement in gateway.announcements]
            assert keys[0] == keys[-1]
            assert len({poll.instance for poll in gateway.polls}) == 2


async def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    owner = Owner(tmp_path, "kind = 'openai'\nbase_url = 'nonsense'")
    code, error = await owner.ctl("daemon", "start")
    assert code == 3
    assert "base_url" in error["message"]


@pytest.mark.model
async def test_a_killed_daemon_takes_its_model_along(tmp_path: Path) -> None:
    file = fetched_path(DEFAULT_MODEL)
    if not file.is_file():
        pytest.skip(f"no model at {file}: run `lattice-ctl models fetch`")
    owner = Owner(tmp_path, f"kind = 'llama'\nmodel = '{file}'\ncontext = 512")
    async with started(owner) as pid:
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        assert len(children) == 1
        os.kill(pid, signal.SIGKILL)
        await gone(lambda: not any(alive(child) for child in children))
