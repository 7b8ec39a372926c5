"""Where workers run: the interface of a fleet driver, and the one that starts processes on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

CREDENTIAL = "LATTICE_WORKER_CREDENTIAL"
_KEPT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "TZ",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SYSTEMROOT",
)
KILL_SECONDS = 10.0
"""Longer than a worker's drain: whoever is still there then is killed."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A worker to start. The repr leaves the credential out."""

    worker_id: str
    credential: str
    gateway: str
    cores: int
    memory_mib: int
    model: str = ""
    driver: str = "{}"

    def __repr__(self) -> str:
        return f"Launch(worker_id={self.worker_id!r})"


class FleetDriver(Protocol):
    """Starts and ends workers. `on_exit(worker_id)` is called once when a worker that it started is gone."""

    async def start(self, launch: Launch, on_exit: Callable[[str], None]) -> None:
        """Start a worker. Raises OSError where it cannot be started."""
        ...

    async def stop(self, worker_id: str) -> None:
        """Make sure that it ends; it has been told to by the gateway, and has its drain reserve to do so."""
        ...

    def alive(self, worker_id: str) -> bool:
        """Whether it runs, as far as the driver can see."""
        ...

    async def resume(self) -> None:
        """The gateway begins: end what an earlier process of it left running."""
        ...

    async def close(self) -> None:
        """The gateway ends: so do its workers."""
        ...


class LocalProcesses:
    """Each worker is a child process of its own; a pipe ends it when this process dies, however it dies."""

    def __init__(self, folder: Path, arguments: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._arguments = arguments or ("-m", "lattice.cli.ctl", "worker", "run")
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, launch: Launch, on_exit: Callable[[str], None]) -> None:
        """Start a worker with its credential in its environment, where other users cannot read it."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache = str(self._folder / "cache")
        options: tuple[str, ...] = ("--gateway", launch.gateway, "--cache", cache, "--watch-parent")
        options += ("--concurrency", str(launch.cores), "--memory-gb", f"{launch.memory_mib / 2048:.2f}")
        options += ("--allow-plain-http",) if launch.gateway.startswith("http:") else ()
        descriptor = os.open(
            self._folder / f"{launch.worker_id}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._arguments,
                *options,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=descriptor,
                env=_environment() | {CREDENTIAL: launch.credential},
            )
        finally:
            os.close(descriptor)
        self._children[launch.worker_id] = process
        self._spawn(self._watch(launch.worker_id, process, on_exit))

    async def stop(self, worker_id: str) -> None:
        """SIGTERM after the drain, then SIGKILL."""
        process = self._children.get(worker_id)
        if process is not None:
            self._spawn(self._end(process))

    def alive(self, worker_id: str) -> bool:
        """Whether the process runs."""
        process = self._children.get(worker_id)
        return process is not None and process.returncode is None

    async def resume(self) -> None:
        """Nothing is left: the pipe ended every child with its parent."""

    async def close(self) -> None:
        """End every child; closing its pipe is enough, and a signal is for one that does not look."""
        children = list(self._children.values())
        for process in children:
            if process.stdin is not None:
                process.stdin.close()
        for process in children:
            try:
                await asyncio.wait_for(process.wait(), 2.0)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        for task in list(self._tasks):
            task.cancel()

    async def _watch(self, worker_id: str, process: asyncio.subprocess.Process, on_exit: Callable[[str], None]) -> None:
        await process.wait()
        if self._children.get(worker_id) is process:
            del self._children[worker_id]
        on_exit(worker_id)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                await asyncio.wait_for(process.wait(), KILL_SECONDS)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
            else:
                return

    def _spawn(self, coroutine: object) -> None:
        task = asyncio.ensure_future(coroutine)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _environment() -> dict[str, str]:
    """What a Python process needs of the gateway's own; whatever else the operator has there may be secret."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return kept
