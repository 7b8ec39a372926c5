"""`python -m benchmarks.fhe_primitives --json out.json`: the encrypted core beside Lattigo and SEAL, in the same run.

Each setting runs in a process of its own that is pinned before anything is loaded: to one core with our code on one
thread and the peers on theirs, then to two cores with our code on two threads (peers do not thread one operation).
Blocks of our calls and of each peer's alternate, and medians count. Rows carry `name, n, limbs, threads, ours_ms, peer,
peer_ms, ratio`; `ratio` is peer over ours, so 5 means five times faster. Targets stand beside it; the floor is in
`fhe_floor`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.fhe_rows import HOISTED
from benchmarks.machine import machine

PRESETS = ("deep-16384", "deep-32768", "deep-65536")
LEFT_OUT = (
    "Lattigo, hoisted rotations alone: the wheel has them only inside its linear transform (see the matrix row)",
    "SEAL, hoisted rotations, matrices and polynomials: not in its interface",
    "OpenFHE and HEXL: in no wheel that may be linked; built from source elsewhere, not here",
)


def measure(
    seconds: float, presets: tuple[str, ...] = PRESETS, threads: tuple[int, ...] = (1, 2), backend: str | None = None
) -> dict[str, Any]:
    """All rows, what was left out and why, and what the rows say together."""
    report: dict[str, Any] = {"machine": machine(), "rows": [], "left_out": [], "settings": []}
    for name in presets:
        for count in threads:
            if count > len(os.sched_getaffinity(0)):
                report["left_out"].append(f"{count} threads: this machine has fewer cores")
                continue
            print(f"{name}, {count} thread(s) …", file=sys.stderr)
            found = _child(name, count, seconds, backend)
            report["rows"] += found["rows"]
            report["left_out"] += found["left_out"]
            report["settings"].append({"preset": name, "threads": count, **found["machine"]})
    report["left_out"] = list(dict.fromkeys([*report["left_out"], *LEFT_OUT]))
    report["findings"] = findings(report["rows"])
    return report


def _child(name: str, threads: int, seconds: float, backend: str | None) -> dict[str, Any]:
    """Start one pinned process and read its rows."""
    cores = sorted(os.sched_getaffinity(0))[-threads:]
    command = ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-m", "benchmarks.fhe_rows"]
    command += ["--preset", name, "--threads", str(threads), "--seconds", str(seconds)]
    command += ["--backend", backend] if backend else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


COLUMNS = (
    "operation",
    "N",
    "limbs",
    "threads",
    "ours ms",
    "peer",
    "peer ms",
    "ratio",
    "goal",
    "× floor",
    "keys MB",
    "error",
)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as text; what sets the floor is b(utterflies) or B(ytes)."""
    letter = "B" if row["floor_by"] == "bytes" else "b"
    return (
        row["name"],
        f"2^{row['n'].bit_length() - 1}",
        row["limbs"],
        str(row["threads"]),
        f"{row['ours_ms']:.3f}",
        (row["peer"] or "").partition(" ")[0],
        f"{row['peer_ms']:.2f}" if row["peer_ms"] else "",
        f"{row['ratio']:.1f}" if row["ratio"] else "",
        f"{row['target']:g}" if row["target"] else "",
        f"{row['times_floor']:.1f} {letter}" if row["times_floor"] else "",
        f"{row['key_bytes'] / 1e6:.1f}" if row["key_bytes"] else "",
        f"{row['error']:.1e}" if row["error"] else "",
    )


def table(rows: list[dict[str, Any]]) -> str:
    """For a terminal."""
    lines = [COLUMNS, *map(cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(report: dict[str, Any]) -> str:
    """For docs/benchmarks.md: the machine, the settings, the table, what it says together and what it lacks."""
    where = report["machine"]
    lines = [f"{where['cpu']}, {where['cores']} cores, load {where['load_before']} before the run.", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in report["rows"]]
    lines += ["", *(f"- {line}" for line in report["findings"])]
    return "\n".join([*lines, *(f"- left out: {line}" for line in report["left_out"])]) + "\n"


def findings(rows: list[dict[str, Any]]) -> list[str]:
    """The targets that are about several rows at once, and those that a row misses."""
    one = {(r["name"], r["n"]): r for r in rows if r["threads"] == 1}
    two = {(r["name"], r["n"]): r for r in rows if r["threads"] == 2}
    out = []
    for (name, n), row in one.items():
        mine = row["ours_ms"]
        hoisted = one.get((f"hoisted rotation, each of {HOISTED}", n))
        if name == "rotation" and hoisted:
            out.append(f"N={n}: a hoisted rotation takes {hoisted['ours_ms'] / mine:.0%} of a full one (≤ 60 %)")
        if name == "rotation" and row["peer_key_bytes"]:
            share = row["key_bytes"] / row["peer_key_bytes"]
            out.append(f"N={n}: a rotation key takes {share:.0%} of Lattigo's bytes (≤ 40 %)")
        if name in {"rotation", "multiply and relinearise"} and (name, n) in two and n >= 1 << 15:
            out.append(f"N={n}: {name} on two cores {mine / two[name, n]['ours_ms']:.2f}× one (≥ 1.4)")
    missed = [r for r in rows if r["target"] and r["ratio"] < r["target"]]
    return [*out, *(f"MISSED {r['name']} N={r['n']}: {r['ratio']} of {r['target']}" for r in missed)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the document here")
    parser.add_argument("--markdown", type=Path, help="write the table of docs/benchmarks.md here")
    parser.add_argument("--seconds", type=float, default=2.0, help="time budget of each row and peer")
    parser.add_argument("--backend", help="the fastest that is there, unless said")
    parser.add_argument("--only", choices=PRESETS, help="one preset")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="one setting")
    given = parser.parse_args()
    presets = (given.only,) if given.only else PRESETS
    report = measure(given.seconds, presets, (given.threads,) if given.threads else (1, 2), given.backend)
    print(table(report["rows"]))
    print("\n".join([*report["findings"], *(f"left out: {line}" for line in report["left_out"])]))
    if given.markdown:
        given.markdown.write_text(markdown(report))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
