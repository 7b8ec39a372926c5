"""`make bench`: every figure, as one JSON document on standard output and a table on standard error."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks import cold_start, footprint, profile, relay


def machine() -> dict[str, Any]:
    """Where this ran; figures of different machines are not comparable."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load run")
    parser.add_argument("--json", type=Path, help="also write the document here")
    parser.add_argument("--only", choices=("relay", "cold-start", "footprint", "profile"))
    given = parser.parse_args()
    report: dict[str, Any] = {"machine": machine()}
    parts = {
        "relay": lambda: relay.measure(given.seconds),
        "profile": lambda: profile.measure(given.seconds),
        "cold-start": cold_start.measure,
        "footprint": footprint.measure,
    }
    for name, measure in parts.items():
        if given.only in (None, name):
            print(f"measuring {name} …", file=sys.stderr)
            report[name] = measure()
    document = json.dumps(report, indent=1)
    print(document)
    if given.json:
        given.json.write_text(document + "\n")


if __name__ == "__main__":
    main()
