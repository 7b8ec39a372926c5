"""What the SDK costs whoever installs it: bytes of a base install, and the time of `import lattice`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROUNDS = 7

_IMPORT = "import time; t = time.perf_counter(); import lattice; {use}; print(time.perf_counter() - t)"


def measure() -> list[dict[str, Any]]:
    """One row for the install, one for each import."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "site"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        constraints = str(ROOT / "constraints.txt")
        subprocess.run([*command, "-c", constraints, "--target", str(target), str(ROOT)], check=True)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        distributions = len(list(target.glob("*.dist-info")))
        numpy = (target / "numpy").exists()
    rows: list[dict[str, Any]] = [
        {
            "name": "base install",
            "megabytes": round(size / 1e6, 1),
            "distributions": distributions,
            "numpy": numpy,
        }
    ]
    for name, use in (("import lattice", "pass"), ("import ComputeClient", "lattice.ComputeClient")):
        rows.append({"name": name, "seconds": round(statistics.median(_time(use) for _ in range(ROUNDS)), 3)})
    return rows


def _time(use: str) -> float:
    done = subprocess.run([sys.executable, "-c", _IMPORT.format(use=use)], capture_output=True, text=True, check=True)
    return float(done.stdout)
