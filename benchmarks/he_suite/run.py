"""Runs HomomorphicEncryption.org's MNIST harness on us: `python -m benchmarks.he_suite.run --json out.json`.

The harness times every executable as a process of its own and decides whether the labels are right. A row has its
time of `server_encrypted_compute` (`ours_ms`, medians over the runs; start, keys, evaluation, blinding, files), what
that process says of its own evaluation, and figures that others published. Everything is pinned to one core.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.he_suite import checkout
from benchmarks.he_suite.checkout import NAMES, HarnessUnavailableError
from benchmarks.he_suite.prepare import Model, Packing
from benchmarks.machine import machine

CACHE = checkout.ROOT / ".cache" / "he_suite"
IMAGES = (1, 15, 1000, 10000)
PUBLISHED: dict[str, list[dict[str, Any]]] = {
    "single": [
        {"peer": "reference (OpenFHE), published, 96-core class server", "ms": 6500.0, "keys": "1 GB"},
        {"peer": "LatticaAI, published, on a GPU", "ms": 15.0, "keys": "46 MB"},
    ],
    "small": [],
    "medium": [
        {"peer": "reference (OpenFHE), published, 96-core class server", "ms": 6_480_000.0},
        {"peer": "LatticaAI, published, on a GPU", "ms": 310.0},
    ],
    "large": [],
}
COMPUTE = "Server: Encrypted ML Inference computation"
SERVER = re.compile(r"\[server\] (.*)")
VALUE = re.compile(r"(\w+) ([0-9.]+) ms")


def packing_of(size: int) -> Packing:
    """As in the executables."""
    return Packing.SINGLE if size < 2 else Packing.BATCH


def row(folder: Path, size: int, printed: str, facts: Any, model: Model) -> dict[str, Any]:
    """One size's figures, from the harness's measurements and what the server printed."""
    name = NAMES[size]
    runs = [json.loads(path.read_text()) for path in sorted((folder / "measurements" / name).glob("*.json"))]
    server = [dict(VALUE.findall(line)) for line in SERVER.findall(printed)]
    io = folder / "io" / name
    return {
        "workload": f"MNIST {name} ({IMAGES[size]} images), {model.value} activations",
        "ours_ms": median_ms([run["per_stage"][COMPUTE] for run in runs]),
        "runs": len(runs),
        "server_ms": {part: statistics.median(float(one[part]) for one in server) for part in server[0]},
        "peers": PUBLISHED[name],
        "key_bytes": bytes_in(io / "public_keys"),
        "ciphertext_bytes": bytes_in(io / "ciphertexts_upload"),
        "result_bytes": bytes_in(io / "ciphertexts_download"),
        "accuracy": accuracy(runs, printed),
        "stages_ms": {stage: median_ms([run["per_stage"][stage] for run in runs]) for stage in runs[0]["per_stage"]},
        **facts,
    }


def median_ms(seconds: list[str]) -> float:
    """Of texts like `0.0312s`."""
    return round(statistics.median(float(text.rstrip("s")) for text in seconds) * 1e3, 2)


def bytes_in(folder: Path) -> int:
    """Of the files, without the folder itself."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def accuracy(runs: list[dict[str, Any]], printed: str) -> dict[str, Any]:
    """How often the label was the true one; for single images over the runs."""
    passed, failed = printed.count("[harness] PASS"), printed.count("[harness] FAIL")
    if passed + failed:
        return {"correct": passed, "of": passed + failed}
    quality = runs[-1]["mnist_model_quality"]
    ours = quality["Encrypted model quality"]
    return {"correct": ours["correct_predictions"], "of": ours["total_samples"]}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All rows."""
    report: dict[str, Any] = {"machine": machine(), "rows": []}
    cache: Path = given.cache.resolve()
    folder = checkout.checkout(given.harness, cache / "ml-inference")
    python = checkout.interpreter(given.python, cache)
    sizes = tuple(dict.fromkeys(given.size or (0, 1)))
    checkout.provide_mnist(folder, sizes)
    for model in dict.fromkeys(given.model or (Model.SQUARE,)):
        facts = checkout.install(folder, model, tuple(dict.fromkeys(packing_of(size) for size in sizes)))
        for size in sizes:
            print(f"{NAMES[size]}, {model} …", file=sys.stderr, flush=True)
            core = None if given.all_cores else max(os.sched_getaffinity(0))
            printed = checkout.run_size(folder, python, size, given.runs, given.seed, core)
            report["rows"].append(row(folder, size, printed, facts[packing_of(size)], model))
    return report


def show(report: dict[str, Any]) -> None:
    """A table for people."""
    for found in report["rows"]:
        says = ", ".join(f"{part} {ms:.1f}" for part, ms in found["server_ms"].items())
        right = found["accuracy"]
        print(f"{found['workload']}: {found['ours_ms']:.1f} ms ({says})")
        print(f"  labels {right['correct']} of {right['of']}, keys {found['key_bytes'] / 1e6:.2f} MB, sent "
              f"{found['ciphertext_bytes'] / 1e3:.0f} kB, results {found['result_bytes'] / 1e3:.0f} kB, "
              f"log2(QP) {found['log_qp']}, {found['security_bits']} bits")  # fmt: skip
        for peer in found["peers"]:
            print(f"  {peer['peer']}: {peer['ms']:.0f} ms" + (f", keys {peer['keys']}" if "keys" in peer else ""))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run our submission in the suite's own harness.")
    parser.add_argument("--harness", default=checkout.SOURCE, help="path or URL of a clone of the harness")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the harness is checked out")
    parser.add_argument("--python", type=Path, help="an interpreter with the harness's requirements")
    parser.add_argument("--size", type=int, choices=range(4), action="append", help="0 and 1 unless said")
    parser.add_argument("--model", type=Model, choices=tuple(Model), action="append", help="square unless said")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--all-cores", action="store_true", help="do not pin to one core")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    try:
        report = measure(given)
    except HarnessUnavailableError as fault:
        sys.exit(str(fault))
    show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
