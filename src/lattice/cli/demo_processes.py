"""The demo's processes: started by id, stopped by id, each with its own log that is shown when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from lattice.core.errors import LatticeError

STOP_SECONDS = 20.0


class Processes:
    """Child processes that end with the demo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[tuple[str, subprocess.Popen[str]]] = []

    def start(self, name: str, module: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Run `python -m module` with its standard error in a log."""
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**_inherited(), **environment},
                start_new_session=True,  # Ctrl-C goes to the demo, which stops its children in order
            )
        self._running.append((name, process))
        return process

    def run(self, name: str, module: str, *arguments: str, **environment: str) -> None:
        """Run `python -m module` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            env={**_inherited(), **environment},
            check=False,
        )
        if done.returncode != 0:
            raise LatticeError("internal", f"{name} failed: {(done.stderr or done.stdout).strip()[-800:]}")

    def require_running(self) -> None:
        """Raise where a process has ended by itself."""
        for name, process in self._running:
            if process.poll() is not None:
                raise LatticeError("internal", f"The {name} ended by itself: {self.log_tail(name)}")

    def log_tail(self, name: str) -> str:
        """The end of a process's log."""
        return (self.folder / f"{name}.log").read_text()[-800:].strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in reversed(self._running):
            process.terminate()
        for _, process in reversed(self._running):
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _inherited() -> dict[str, str]:
    """The environment without settings of a gateway: the demo's has its own database, whatever the user's has."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LATTICE_GATEWAY_")}


class RunningGateway(NamedTuple):
    """Where it is, and the owner's key and account."""

    url: str
    key: str
    account: str

    def __repr__(self) -> str:
        return f"RunningGateway({self.url!r})"


def start_gateway(processes: Processes) -> RunningGateway:
    """Start a gateway on a free port with a new database."""
    data = processes.folder / "gateway"
    process = processes.start("gateway", "lattice.cli.main", "up", "--port", "0", "--data-dir", str(data), "--json")
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        process.wait()
        raise LatticeError("internal", f"The gateway did not start: {processes.log_tail('gateway')}")
    ready = json.loads(line)
    return RunningGateway(ready["url"], ready["key"], ready["account"])


class Machine:
    """A daemon with a state folder of its own."""

    def __init__(self, processes: Processes, name: str, gateway: str) -> None:
        self._processes = processes
        self._name = name
        self._gateway = gateway
        self._environment = {
            "LATTICE_STATE_DIR": str(processes.folder / f"machine-{name}"),
            "LATTICE_LOCAL_API__PORT": "0",
        }

    def connect(self, token: str) -> Machine:
        """`lattice-ctl relay connect`."""
        self._processes.run(
            f"pairing of the {self._name} machine",
            "lattice.cli.ctl",
            "relay",
            "connect",
            "--gateway",
            self._gateway,
            "--name",
            self._name,
            **self._environment,
            LATTICE_BOOTSTRAP_TOKEN=token,
        )
        return self

    def start(self) -> None:
        """`lattice-ctl daemon run`."""
        self._processes.start(f"{self._name} machine", "lattice.cli.ctl", "daemon", "run", **self._environment)
