"""Processes under measurement, pinned to cores so that the gateway has one to itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

GATEWAY_CORE = 0
LOAD_CORE = 1

_TICK = os.sysconf("SC_CLK_TCK")


def pin(core: int, pid: int = 0) -> None:
    """Keep a process (all its threads) on one core; does nothing on a machine with one."""
    if core in os.sched_getaffinity(0) or core < (os.cpu_count() or 1):
        for task in os.listdir(f"/proc/{pid or os.getpid()}/task"):
            os.sched_setaffinity(int(task), {core})


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident_mib(pid: int) -> float:
    """Resident memory now, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def started(core: int, module: str, *arguments: str, log: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `python -m module` on a core until the block ends."""
    sink: IO[str] | int = log.open("w") if log else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=sink,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}) if (os.cpu_count() or 1) > core else None,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def gateway(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A gateway with a new database on a free port, and what it said when it was ready."""
    data = str(folder / "data")
    up = ("up", "--port", "0", "--data-dir", data, "--json", *arguments)
    with started(GATEWAY_CORE, "lattice.cli.main", *up, log=folder / "gateway.log") as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
