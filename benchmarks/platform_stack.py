"""Encrypted inference as it is deployed, in real processes: a gateway, workers pinned to cores, end users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import GATEWAY_CORE, gateway
from lattice.client.management import ManagementClient

WORKER_CORE = 1
GRANT_MICRO = 10**12


def usable(core: int) -> int:
    """The core, or the last one of a smaller machine."""
    return min(core, (os.cpu_count() or 1) - 1)


class Stack:
    """A gateway, what a provider does there, and processes of workers and users."""

    def __init__(self, folder: Path, pid: int, ready: dict[str, str]) -> None:
        self.folder, self.pid, self.url = folder, pid, ready["url"]
        self.provider = ManagementClient(ready["url"], ready["key"])
        self.provider.grant_credits(ready["account"], GRANT_MICRO, "benchmark")

    def deploy(self, name: str, artefact: Path) -> None:
        """Make a model of a compiled file; it is ready afterwards."""
        self.provider.create_encrypted_model(name)
        version = self.provider.upload_model(name, artefact)
        self.provider.wait_ready(name, version["version"], timeout_s=300)

    @contextmanager
    def workers(self, name: str, cores: Sequence[int]) -> Iterator[list[int]]:
        """A worker of one query at a time on each of these cores, active; their process ids."""
        with ExitStack() as stack:
            started = self.provider.workers.start(name, hardware_class="own", count=len(cores))
            pids = [stack.enter_context(self._worker(row, core)) for row, core in zip(started, cores, strict=True)]
            for row in started:
                stack.callback(self.provider.workers.stop, row["id"])
                self.provider.workers.wait_active(row["id"])
            yield pids

    @contextmanager
    def _worker(self, row: dict[str, Any], core: int) -> Iterator[int]:
        command = [sys.executable, "-m", "lattice.cli.ctl", "worker", "run", "--gateway", self.url]
        command += ["--cache", str(self.folder / "cache"), "--concurrency", "1"]
        environment = {**os.environ, "LATTICE_WORKER_CREDENTIAL": row["credential"]}
        with (self.folder / f"{row['id']}.log").open("w") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, {usable(core)}),
            )
            try:
                yield process.pid
            finally:
                process.terminate()
                process.wait(30)

    @contextmanager
    def user(self, name: str, who: str, core: int, samples: Path | None = None) -> Iterator[UserProcess]:
        """An end user with a token and a folder of its own."""
        token = self.provider.tokens.create(name, who, user=who)["secret"]
        arguments = ["--url", self.url, "--token", token, "--folder", str(self.folder / name / who)]
        arguments += [] if samples is None else ["--samples", str(samples)]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.platform_user", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {usable(core)}),
        )
        try:
            yield UserProcess(process)
        finally:
            process.terminate()
            process.wait(30)


class UserProcess:
    """A `benchmarks.platform_user` that is told what to do."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self.pid = process, process.pid
        self._said: Any = None

    def heard(self) -> Any:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a user's process ended")
        return json.loads(line)

    def tell(self, **task: Any) -> None:
        """Start a task."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()


class Watch:
    """The most anonymous memory that a process and its children had while it was watched, in MiB."""

    def __init__(self, pid: int) -> None:
        self._pid, self._over = pid, threading.Event()
        self.own = self.first = anonymous_mib(pid)
        self.children = 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.own = max(self.own, anonymous_mib(self._pid))
            for child in Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split():
                self.children = max(self.children, anonymous_mib(int(child)))


def anonymous_mib(pid: int) -> float:
    """Resident memory that is the process's own: pages of mapped files can be dropped at any time."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    except OSError:  # it has ended
        pass
    return 0.0


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """A gateway on its core and a provider's client; the clients' own files stay in the folder."""
    kept = os.environ.get("LATTICE_CLIENT_HOME")
    os.environ["LATTICE_CLIENT_HOME"] = str(folder / "home")
    try:
        with gateway(folder) as (process, ready):
            stack = Stack(folder, process.pid, ready)
            try:
                yield stack
            finally:
                stack.provider.close()
    finally:
        if kept is None:
            del os.environ["LATTICE_CLIENT_HOME"]
        else:
            os.environ["LATTICE_CLIENT_HOME"] = kept


def idle_until(moment: float) -> None:
    """Sleep to a point of the monotonic clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


__all__ = ["GATEWAY_CORE", "WORKER_CORE", "Stack", "UserProcess", "Watch", "idle_until", "running"]
