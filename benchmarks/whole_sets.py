"""Encrypted accuracy beside plaintext accuracy on whole test sets: `python -m benchmarks.encrypted_models --whole`.

Every sample is encrypted, evaluated and decrypted, one in a query (`latency`) or as many as a query holds
(`throughput`), as a user would have it run. One process a row, pinned to one core: JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.model_rows import PROGRESS, Stopwatch
from benchmarks.model_workloads import WORKLOADS, Workload
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.levels.options import Goal

Real = NDArray[np.floating[Any]]
BATCH = 1024
"""Samples that a query holds at least, of those packed for throughput."""
REPORTED_S = 20.0
SEARCHED, NEAREST = 1000, 10
"""Results from which on a model is a search, and how many of its best are compared."""
WITHIN = 0.001
"""A tenth of a percentage point."""


def whole_set(workload: Workload, packing: str, most: int | None) -> dict[str, Any]:
    """One row; the first `most` test samples, or all."""
    compiled = _compiled(workload, packing)
    watch = Stopwatch(compiled)
    test = workload.example.data().test
    samples = test[:most]
    started = time.monotonic()
    values = _queried(watch, samples)
    seconds = time.monotonic() - started
    clear = workload.example.clear(samples, scores=True)
    found = workload.accuracy(values, clear)
    lost = found["plain_accuracy"] - found["accuracy"]
    return {
        "workload": workload.name,
        "packing": packing,
        "in_a_query": compiled.client.batch,
        "samples": len(samples),
        "of": len(test),
        **found,
        "lost_percentage_points": round(100 * lost, 3),
        "within_tolerance": bool(abs(lost) <= WITHIN + 1e-9),
        **recall(values, clear),
        "max_error": float(np.abs(values - clear).max()),
        "rms_error": float(np.sqrt(np.mean((values - clear) ** 2))),
        "seconds": round(seconds, 1),
        "evaluate_ms": round(1e3 * float(np.median(watch.taken.evaluate)), 3),
        "activations": [
            {"name": one["name"], "degree": one["degree"], "seen_error": one["seen_error"]}
            for one in compiled.report.get("activations", ())
        ],
    }


def recall(values: Real, clear: Real) -> dict[str, float]:
    """Of a search, the share of the nearest rows in the clear that are among the nearest encrypted too."""
    if values.shape[1] < SEARCHED:
        return {}
    found, wanted = (np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST] for scores in (values, clear))
    shared = [len(np.intersect1d(a, b)) for a, b in zip(found, wanted, strict=True)]
    return {f"recall_at_{NEAREST}": float(np.mean(shared)) / NEAREST}


def _compiled(workload: Workload, packing: str) -> Compiled:
    if packing == "latency":
        return workload.compile()
    return workload.example.compile(goal=Goal.THROUGHPUT, batch=BATCH)


def _queried(watch: Stopwatch, samples: Real) -> Real:
    """All results, a query at a time."""
    batch, values, told = watch.compiled.client.batch, [], time.monotonic()
    for start in range(0, len(samples), batch):
        values.append(watch.query(samples[start : start + batch]))
        if time.monotonic() - told > REPORTED_S:
            told = time.monotonic()
            print(f"{PROGRESS} {start} of {len(samples)} samples", file=sys.stderr, flush=True)
    return np.concatenate(values)


def table(rows: list[dict[str, Any]]) -> str:
    """For the terminal."""
    lines: list[tuple[str, ...]] = [
        ("workload", "packing", "samples", "encrypted", "in the clear", "lost", "same", "largest error", "s")
    ]
    lines += [_cells(row) for row in rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["workload"],
        f"{row['packing']} × {row['in_a_query']}",
        f"{row['samples']} of {row['of']}",
        f"{row['accuracy']:.4%}",
        f"{row['plain_accuracy']:.4%}",
        f"{row['lost_percentage_points']:+.3f} pp{'' if row['within_tolerance'] else ' MISSED'}",
        f"{row['agreement']:.4%}",
        f"{row['max_error']:.1e}",
        f"{row['seconds']:.0f}",
    )


def main() -> None:
    """Command line of the child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("packing", choices=("latency", "throughput"))
    parser.add_argument("--samples", type=int, help="the first so many, not all")
    given = parser.parse_args()
    warnings.simplefilter("once")
    json.dump(whole_set(WORKLOADS[given.workload], given.packing, given.samples), sys.stdout)


if __name__ == "__main__":
    main()
