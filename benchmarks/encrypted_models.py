"""`python -m benchmarks.encrypted_models --json out.json`: trained models run encrypted, beside Orion and TenSEAL.

Each workload, and each peer, runs in a process of its own that is pinned to one core before anything is loaded; ours
and the peers' take turns. All run the same weights on the same held-out samples. `ours_ms` and `peer_ms` are the
server's part of one query, medians; encryption and decryption stand beside them. A peer that is not installed is left
out and said: `benchmarks.model_peers` tells how to install them; name their interpreter with `--peers`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.model_rows import PROGRESS
from benchmarks.model_workloads import WORKLOADS, Workload
from benchmarks.whole_sets import table as table_of_sets

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".cache" / "peers" / "bin" / "python"
"""Where the peers' interpreter is looked for unless it is named."""
PEER_SAMPLES = 8
PEER_MEMORY_GB = {"orion-lenet": 14.0}
"""Free memory without which a peer is left out."""
ACCURACY_SAMPLES = 1000


def measure(
    seconds: float,
    names: tuple[str, ...] = tuple(WORKLOADS),
    peers: Path | None = None,
    samples: int = ACCURACY_SAMPLES,
) -> dict[str, Any]:
    """All rows, one for each workload and peer, and what was left out."""
    interpreter = peers or (PEERS if PEERS.exists() else Path(sys.executable))
    report: dict[str, Any] = {"machine": machine(), "rows": [], "left_out": []}
    for name in names:
        workload = WORKLOADS[name]
        print(f"{workload.title} …", file=sys.stderr, flush=True)
        ours, fault = child(
            [sys.executable, "-m", "benchmarks.model_rows", name, f"--seconds={seconds}", f"--samples={samples}"]
        )
        if fault:
            report["left_out"].append(f"{name}: {fault}")
            continue
        ours = {"title": workload.title, **ours, "target": workload.target._asdict()}
        found = [beside(workload, peer, interpreter, report["left_out"]) for peer in workload.peers]
        report["rows"] += [{**ours, **row} for row in found if row] or [{**ours, "peer": None, "peer_ms": None}]
    report["left_out"] = list(dict.fromkeys(report["left_out"]))
    report["findings"] = findings(report["rows"])
    return report


def measure_whole(names: tuple[str, ...], samples: int | None) -> dict[str, Any]:
    """Accuracy on whole test sets, in every packing; of slow workloads on a thousand samples unless said."""
    report: dict[str, Any] = {"machine": machine(), "rows": [], "left_out": []}
    for name in names:
        workload = WORKLOADS[name]
        most = samples or (ACCURACY_SAMPLES if workload.few else None)
        for packing in workload.whole:
            print(f"{workload.title}, {packing} …", file=sys.stderr, flush=True)
            bound = [f"--samples={most}"] if most else []
            found, fault = child([sys.executable, "-m", "benchmarks.whole_sets", name, packing, *bound])
            if fault:
                report["left_out"].append(f"{name}, {packing}: {fault}")
            else:
                report["rows"].append(found)
    return report


def beside(workload: Workload, peer: str, interpreter: Path, left_out: list[str]) -> dict[str, Any] | None:
    """One peer's figures, each name with `peer_` in front."""
    if free_gb() < PEER_MEMORY_GB.get(peer, 1.0):
        left_out.append(f"{peer}: {free_gb():.0f} GB of memory are free, it needs {PEER_MEMORY_GB.get(peer, 1.0):.0f}")
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.npz")
        np.savez(path, **workload.peer_arrays(64))
        found, fault = child([str(interpreter), "-m", "benchmarks.model_peers", peer, str(path), str(PEER_SAMPLES)])
    if fault or "left_out" in found:
        left_out.append((fault and f"{peer}: {fault}") or found["left_out"])
        return None
    row = {"peer" if key == "peer" else f"peer_{key}": value for key, value in found.items()}
    return {**row, "peer_ms": found["evaluate_ms"]}


def child(command: list[str]) -> tuple[dict[str, Any], str]:
    """Run a process pinned to the last core, at the end of whose output there is a JSON document; or why not."""
    core = max(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GOMAXPROCS": "1"}
    pinned, said = ["taskset", "-c", str(core), *command], "no output"
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            pinned, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process,
    ):
        for line in process.stderr or ():
            if line.startswith(PROGRESS):
                print(line, end="", file=sys.stderr, flush=True)
            else:
                said = line.strip() or said
        code = process.wait()
        output.seek(0)
        lines = output.read().strip().splitlines()
    if code or not lines:
        return {}, said
    found: dict[str, Any] = json.loads(lines[-1])
    return found, ""


def free_gb() -> float:
    """Memory that is available."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6


def findings(rows: list[dict[str, Any]]) -> list[str]:
    """Targets that were missed, and how much faster and smaller we are."""
    out = []
    for row in rows:
        out += [f"MISSED {row['title']}: {text}" for text in missed(row)]
        if row["peer"]:
            keys = f"{row['peer_key_bytes'] / row['key_bytes']:.1f}× fewer key bytes" if row["key_bytes"] else "no keys"
            out.append(f"{row['title']}: {row['peer_ms'] / row['ours_ms']:.1f}× faster than {row['peer']}, {keys}")
    return list(dict.fromkeys(out))


def missed(row: dict[str, Any]) -> list[str]:
    """What the design asked for and this run has not."""
    target, out = row["target"], []
    if target["ms"] is not None and row["ours_ms"] > target["ms"]:
        out.append(f"{row['ours_ms']:.2f} ms, not {target['ms']}")
    if target["key_bytes"] is not None and row["key_bytes"] > target["key_bytes"]:
        out.append(f"{row['key_bytes'] / 1e6:.1f} MB of keys, not {target['key_bytes'] / 1e6:.0f}")
    if target["error"] is not None and row["max_error"] > target["error"]:
        out.append(f"an error of {row['max_error']:.1e}, not {target['error']:.0e}")
    if target["rows_per_second"] is not None and row["rows_per_second"] < target["rows_per_second"]:
        out.append(f"{row['rows_per_second']:,} rows/s, not {target['rows_per_second']:,.0f}")
    if row["plain_accuracy"] - row["accuracy"] > 0.001 + 1e-9:
        out.append(f"accuracy {row['accuracy']:.4f}, in the clear {row['plain_accuracy']:.4f}")
    if row["security_bits"] < 128:
        out.append("less than 128 bits of security")
    return out


def table(rows: list[dict[str, Any]]) -> str:
    """For the terminal."""
    head = ("workload", "ours ms", "keys MB", "in KB", "error", "accuracy", "peer", "peer ms", "ratio", "its keys MB")
    lines = [head]
    for row in rows:
        peer = (row["peer"], f"{row['peer_ms']:.2f}", f"{row['peer_ms'] / row['ours_ms']:.1f}") if row["peer"] else ()
        keys = (f"{row['peer_key_bytes'] / 1e6:.1f}",) if row["peer"] else ()
        lines.append(
            (
                row["title"],
                f"{row['ours_ms']:.3f}",
                f"{row['key_bytes'] / 1e6:.1f}",
                f"{row['ciphertext_bytes'] / 1e3:.0f}",
                f"{row['max_error']:.0e}",
                f"{row['accuracy']:.4f}/{row['plain_accuracy']:.4f}",
                *(*peer, *keys, "", "", "", "")[:4],
            )
        )
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the document here")
    parser.add_argument("--seconds", type=float, default=2.0, help="time budget of each workload beyond its accuracy")
    parser.add_argument("--samples", type=int, help="held-out samples that accuracy is on (1000; with --whole all)")
    parser.add_argument("--whole", action="store_true", help="only accuracy, encrypted and plain, on whole test sets")
    parser.add_argument("--only", action="append", choices=sorted(WORKLOADS), help="some workloads")
    parser.add_argument("--peers", type=Path, help="the interpreter of an environment with orion-fhe and tenseal")
    given = parser.parse_args()
    names = tuple(given.only or WORKLOADS)
    if given.whole:
        report = measure_whole(names, given.samples)
        print(table_of_sets(report["rows"]))
    else:
        report = measure(given.seconds, names, given.peers, given.samples or ACCURACY_SAMPLES)
        print(table(report["rows"]))
    print("\n".join([*report.get("findings", ()), *(f"left out: {line}" for line in report["left_out"])]))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
