"""`make bench`: every figure, as one JSON document on standard output and a table on standard error."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import cold_start, encrypted_models, fhe_primitives, footprint, platform, profile, relay
from benchmarks.machine import machine


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each load run")
    parser.add_argument("--json", type=Path, help="also write the document here")
    parser.add_argument("--only", choices=("relay", "cold-start", "footprint", "profile", "fhe", "models", "platform"))
    given = parser.parse_args()
    report: dict[str, Any] = {"machine": machine()}
    parts = {
        "relay": lambda: relay.measure(given.seconds),
        "profile": lambda: profile.measure(given.seconds),
        "cold-start": cold_start.measure,
        "footprint": footprint.measure,
        "fhe": lambda: fhe_primitives.measure(given.seconds / 4),
        "models": lambda: encrypted_models.measure(given.seconds / 4),
        "platform": lambda: platform.measure(given.seconds),
    }
    cores = os.sched_getaffinity(0)
    for name, measure in parts.items():
        if given.only in (None, name):
            print(f"measuring {name} …", file=sys.stderr)
            report[name] = measure()
            os.sched_setaffinity(0, cores)  # the relay's load generator pins itself
    document = json.dumps(report, indent=1)
    print(document)
    if given.json:
        given.json.write_text(document + "\n")


if __name__ == "__main__":
    main()
