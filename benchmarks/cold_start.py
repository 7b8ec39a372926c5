"""From the command to the first 200, on a new and on an existing database, with the memory that it took."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.processes import resident_mib

ROUNDS = 5


def measure() -> list[dict[str, Any]]:
    """Two rows."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        _start(Path(folder) / "data", 18_789)
    for name in ("new database", "existing database"):
        seconds, memory = [], []
        with tempfile.TemporaryDirectory() as folder:
            if name == "existing database":
                _start(Path(folder) / "data", 18_790)
            for index in range(ROUNDS):
                data = Path(folder) / ("data" if name == "existing database" else f"data{index}")
                took, used = _start(data, 18_791 + index)
                seconds.append(took)
                memory.append(used)
        rows.append(
            {
                "name": f"cold start, {name}",
                "seconds_to_first_200": round(statistics.median(seconds), 3),
                "resident_mib": round(statistics.median(memory), 1),
                "rounds": ROUNDS,
            }
        )
    return rows


def _environment() -> dict[str, str]:
    """Bytecode may be kept, as in any ordinary installation; the first start, which writes it, is not counted."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _start(data: Path, port: int) -> tuple[float, float]:
    begun = time.perf_counter()
    command = [sys.executable, "-m", "lattice.cli.main", "up", "--port", str(port), "--data-dir", str(data), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).read()
                return time.perf_counter() - begun, resident_mib(process.pid)
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError("the gateway ended") from None
                time.sleep(0.005)
    finally:
        process.terminate()
        process.wait(30)
