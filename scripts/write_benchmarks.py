"""Writes docs/benchmarks.md from what `make bench` printed: `python -m scripts.write_benchmarks out.json`.

The page is never edited by hand, so that its figures are those of one run on one machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

_HEAD = """<!-- Written by `python -m scripts.write_benchmarks` from a run of `make bench`. Do not edit. -->

# Benchmarks

```sh
make bench ARGS="--json out.json"
```

measures on your machine. Figures of different machines are not comparable; the ratios within a run are. Run it
with nothing else running. This page is one run on: {cpu}, {cores} cores, Python {python}, load before it
{load_before}.
"""

_RELAY = """
## Through the sealed relay

Key check, sealing with X-Wing, receipt check and the durable ledger (SQLite, WAL, synchronous FULL) are on. The
gateway has one core to itself; the load generator and an instant runtime, which does the real protocol and the
real sealing, share the other. "Direct" is the same answer from the same HTTP stack without Lattice, measured
next to each row. `hosted` holds and settles credits; `personal` is one's own machine. Requests per core-second
divide by the processor time of the gateway alone; requests per second are limited by the other core too.
"""

_PROFILE = """
### Where the gateway's time goes

Hosted chat, 64 at once: samples of the interpreter while it holds its lock (py-spy), by part. What runs without
the lock is not in it: the database's fsync, and Ed25519, about 0.1 ms a request.
"""

_START = """
## Start and size
"""

_FHE = """
## The encrypted core

Ours and the peer's call alternate in one process that is pinned to one core (or to two, with two threads of
ours; peers do not thread one operation); the median of each counts. `ratio` is peer over ours. The floor is
what the butterflies or the bytes of an operation cost at this machine's measured speed. Left out: {left_out}.
"""

_MODELS = """
## Trained models, encrypted

The server's part of one query: seeds expanded, the program run, the result blinded; medians on one core, each
workload and each peer in a process of its own, with the same weights on the same held-out samples. `error` is the
largest in a score. Accuracy is that of encrypted runs on {samples:,} held-out samples at the most, beside the model
in the clear on the same. Compiling, [training and data](how-to/run-encrypted-models.md) are apart.{left_out}
"""

_PLATFORM = """
## Encrypted inference as a service

A gateway, `lattice-ctl worker run` and `QueryClient`, each in a process of its own on loopback: the gateway on one
core, each worker on another, users on a third, or, on a machine of two, with the gateway. Every query is durable before
a worker gets it, every result before its user does. First {queries} queries on the {model}, one after another. Overhead
is everything but encrypting, evaluating and decrypting; evaluating is what the worker's receipt says, in whole
milliseconds, rounded down. The gateway used {gateway_cpu_ms:.1f} ms of its core for a query. `body`, `queue`, `worker`
and `total` are the gateway's `Server-Timing`: until the query is queued, until a worker has it, until the result is
there, all.
"""

_MANY = """
Users who ask without a pause, two queries under way each. `evaluating` is the share of the time in which a worker has
an evaluation in progress; `useful` counts each evaluation at what it takes alone, so that what the worker does
beside it on the same core is left out. The columns of processor time are cores.{shared}
"""

_KEYS = """
Keys for a program of fifteen rotations at N = 2^15, from one client. The upload is timed from the first byte to the
answer that all of it is stored, with its hash checked; the check of every key follows in a child process. Memory is
the processes' own, at its highest.
"""


def main() -> None:
    """Read the document named on the command line and write the page."""
    report = json.loads(Path(sys.argv[1]).read_text())
    machine = report["machine"]
    parts = [_HEAD.format(**machine), report.get("note", ""), _RELAY, _relay(report["relay"])]
    if report.get("profile"):
        parts += [_PROFILE, _table(("part", "share"), ((r["part"], f"{r['share']:.0%}") for r in report["profile"]))]
    parts += [_START, _start(report["cold-start"], report["footprint"])]
    if "fhe" in report:
        parts += [_FHE.format(left_out="; ".join(report["fhe"]["left_out"])), _fhe(report["fhe"])]
    if "models" in report:
        parts += [_models_head(report["models"]), _models(report["models"])]
    if "platform" in report:
        parts += _platform(report["platform"])
    PAGE.write_text("\n".join(part.strip("\n") + "\n" for part in parts))


def _relay(rows: list[dict[str, Any]]) -> str:
    columns = (
        "what",
        "at once",
        "requests/s",
        "per core-second",
        "p50 ms",
        "p99 ms",
        "direct p50 ms",
        "added p50 ms",
        "added p99 ms",
        "added to first byte ms",
        "gateway MiB",
    )
    return _table(
        columns,
        (
            (
                row["name"],
                row["concurrency"],
                f"{row['requests_per_second']:.0f}",
                f"{row['requests_per_core_second']:.0f}",
                f"{row['p50_ms']:.2f}",
                f"{row['p99_ms']:.2f}",
                f"{row['direct_p50_ms']:.2f}",
                f"{row['added_p50_ms']:.2f}",
                f"{row['added_p99_ms']:.2f}",
                f"{row['added_first_byte_ms']:.2f}",
                f"{row['gateway_mib']:.0f}",
            )
            for row in rows
        ),
    )


def _start(starts: list[dict[str, Any]], sizes: list[dict[str, Any]]) -> str:
    rows = [
        (r["name"], f"{r['seconds_to_first_200']:.2f} s to the first 200, {r['resident_mib']:.0f} MiB") for r in starts
    ]
    for row in sizes:
        if "megabytes" in row:
            numpy = "with numpy" if row["numpy"] else "without numpy"
            rows.append((row["name"], f"{row['megabytes']} MB, {row['distributions']} distributions, {numpy}"))
        else:
            rows.append((row["name"], f"{row['seconds']:.2f} s"))
    return _table(("what", "figure"), rows)


def _fhe(report: dict[str, Any]) -> str:
    columns = (
        "operation",
        "N, limbs",
        "threads",
        "ours ms",
        "peer",
        "peer ms",
        "ratio",
        "× floor",
        "key MB",
        "ciphertext KB, packed / seeded",
        "error",
        "log2(QP), bound",
    )
    table = _table(
        columns,
        (
            (
                row["name"],
                f"{row['n']}, {row['limbs']}",
                row["threads"],
                f"{row['ours_ms']:.3f}",
                row.get("peer") or "",
                _number(row.get("peer_ms"), ".2f"),
                _number(row.get("ratio"), ".1f"),
                _number(row.get("times_floor"), ".1f"),
                _number(row.get("key_bytes"), ".1f", 1e6),
                f"{row['ciphertext_bytes_packed'] / 1e3:.0f} / {row['ciphertext_bytes_seeded'] / 1e3:.0f}",
                _number(row.get("error"), ".0e"),
                f"{row['log_qp']:.0f}, {row['log_qp_bound_128']}",
            )
            for row in report["rows"]
        ),
    )
    settings = sorted({setting["backend"] for setting in report["settings"]})
    findings = "\n".join(f"- {finding}" for finding in report["findings"])
    return f"Backend: {'; '.join(settings)}.\n\n{table}\n{findings}\n"


def _models_head(report: dict[str, Any]) -> str:
    samples = max(row["accuracy_samples"] for row in report["rows"])
    left_out = f" Left out: {'; '.join(report['left_out'])}." if report["left_out"] else ""
    return _MODELS.format(samples=samples, left_out=left_out)


def _models(report: dict[str, Any]) -> str:
    columns = (
        "workload",
        "ours ms",
        "encrypt / decrypt ms",
        "peer",
        "peer ms",
        "ratio",
        "key MB, ours / peer",
        "query KB, ours / peer",
        "weights MB",
        "error, ours / peer",
        "accuracy, encrypted / clear",
        "log2(QP), bound",
    )
    table = _table(columns, (_model_row(row) for row in report["rows"]))
    findings = "\n".join(f"- {finding}" for finding in report["findings"])
    return f"{table}\n{findings}\n"


def _model_row(row: dict[str, Any]) -> tuple[str, ...]:
    peer = row.get("peer")
    ratio = row["peer_ms"] / row["ours_ms"] if peer else None
    many = f" ({row['rows_per_second']:,} rows/s)" if row["rows"] > 1000 else ""
    return (
        row["title"],
        f"{row['ours_ms']:.2f}{many}",
        f"{row['encrypt_ms']:.2f} / {row['decrypt_ms']:.2f}",
        peer or "",
        _number(row["peer_ms"], ".1f"),
        _number(ratio, ".1f"),
        _pair(row, "key_bytes", ".1f", 1e6),
        _pair(row, "ciphertext_bytes", ".0f", 1e3),
        f"{row['weight_bytes'] / 1e6:.1f}",
        _pair(row, "max_error", ".0e"),
        f"{row['accuracy']:.2%} / {row['plain_accuracy']:.2%}",
        f"{row['log_qp']:.0f}, {row['log_qp_bound']}",
    )


def _pair(row: dict[str, Any], name: str, form: str, unit: float = 1) -> str:
    peer = row.get(f"peer_{name}")
    return _number(row[name], form, unit) + (f" / {_number(peer, form, unit)}" if peer is not None else "")


def _platform(report: dict[str, Any]) -> list[str]:
    queries, many = report["queries"], report["concurrency"]
    steps = [(name, queries[name]) for name in ("total", "encrypt", "evaluate", "decrypt", "overhead")]
    steps += [(f"`{name}`", spread) for name, spread in queries["server_timing"].items()]
    shared = " Of two workers on a machine of two cores one shares its core with the gateway and the users."
    return [
        _PLATFORM.format(**queries),
        _table(("step", "p50 ms", "p95 ms"), ((name, f"{s['p50_ms']:.1f}", f"{s['p95_ms']:.1f}") for name, s in steps)),
        _MANY.format(shared=shared if any(row["shared_core"] for row in many) else ""),
        _table(
            (
                "model",
                "worker cores",
                "users",
                "queries/s",
                "evaluating",
                "useful",
                "workers",
                "gateway",
                "users' processes",
                "total p50 ms",
                "p95 ms",
            ),
            (_many_row(row) for row in many),
        ),
        _KEYS,
        _table(("what", "figure"), _keys_rows(report)),
        "".join(f"- {finding}\n" for finding in report["findings"]) or "Every target of the design was reached.",
    ]


def _many_row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["model"],
        row["worker_cores"],
        row["users"],
        f"{row['queries_per_second']:.1f}",
        f"{row['evaluating']:.0%}",
        f"{row['useful']:.0%}",
        f"{row['worker_cpu']:.2f}",
        f"{row['gateway_cpu']:.2f}",
        f"{row['users_cpu']:.2f}",
        f"{row['total']['p50_ms']:.0f}",
        f"{row['total']['p95_ms']:.0f}",
    )


def _keys_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    keys, took = report["keys"], report["import"]
    return [
        ("keys made", f"{keys['megabytes']:.0f} MB in {keys['make_s']:.2f} s"),
        ("uploaded", f"{keys['upload_mb_per_second']:.0f} MB/s, {keys['upload_s']:.2f} s"),
        (
            "gateway's memory above its {:.0f} MiB".format(keys["gateway_resident_mib"]),
            f"{keys['gateway_above_mib']:.1f} MiB",
        ),
        ("checked", f"{keys['check_s']:.2f} s, {keys['check_mib']:.0f} MiB"),
        (took["name"], f"{took['seconds']:.2f} s"),
    ]


def _number(value: Any, form: str, unit: float = 1) -> str:
    return "" if value is None else format(value / unit, form)


def _table(columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
