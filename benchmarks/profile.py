"""Where the gateway's time goes under load: samples of the interpreter while it holds the core, by part."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.relay import stack

PARTS = (
    ("key encapsulation (X-Wing)", ("wrap_work_key",)),
    ("signatures (sender, receipt)", ("PublicIdentity.verify", "IdentityKey.sign")),
    ("sealing, the rest", ("lattice/sealing",)),
    ("commit (fsync) and store", ("lattice/gateway/store", "lattice/gateway/ledger", "lattice/gateway/works")),
    ("identity, routing, admission", ("lattice/gateway/identity", "lattice/gateway/routing", "lattice/gateway/chat")),
    ("relay", ("lattice/gateway/relay",)),
    ("metrics and logs", ("lattice/gateway/metrics", "structlog")),
    ("HTTP (uvicorn, Starlette, our boundary)", ("uvicorn", "starlette", "lattice/gateway/http")),
)


def measure(seconds: float) -> list[dict[str, Any]]:
    """Share of each part, hosted chat at concurrency 64. Empty where py-spy is not installed."""
    spy = Path(sys.executable).with_name("py-spy")
    command = str(spy) if spy.exists() else shutil.which("py-spy")
    if command is None:
        return []
    with tempfile.TemporaryDirectory(prefix="lattice-profile-") as folder, stack(Path(folder)) as paths:
        raw = Path(folder) / "profile.raw"
        load = threading.Thread(target=lambda: paths.row("chat", "hosted", False, 64, seconds + 3))
        load.start()
        load.join(seconds + 5)  # the direct twin runs first
        options = ["--gil", "--rate", "500", "--format", "raw", "--duration", str(int(seconds))]
        arguments = [command, "record", *options, "--output", str(raw), "--pid", str(paths.pid)]
        subprocess.run(arguments, check=True, capture_output=True)
        load.join()
        return _shares(raw.read_text())


def _shares(raw: str) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        frames, _, samples = line.rpartition(" ")
        counts[_part(frames.split(";"))] += int(samples)
    total = counts.total()
    return [{"part": part, "share": round(count / total, 3)} for part, count in counts.most_common()]


def _part(frames: list[str]) -> str:
    """The part of the innermost frame that belongs to one; sealing done for the chat route counts as sealing."""
    for frame in reversed(frames):
        for part, marks in PARTS:
            if any(mark in frame for mark in marks):
                return part
    return "event loop and the rest"


if __name__ == "__main__":
    print(json.dumps(measure(8.0), indent=1))
