"""What the platform costs beside the arithmetic: queries one after another, many users at once, keys, the import.

A real gateway, real `lattice-ctl worker run` processes and real `QueryClient`s, each in a process of its own. The
gateway has core 0, a worker core 1, users core 2 or, where there are two cores, the gateway's.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from examples.models.example import Example
from examples.models.mnist_lenet.run import EXAMPLE as LENET
from examples.models.mnist_mlp.run import EXAMPLE as MLP

from benchmarks.many_keys import compiled as many_keys
from benchmarks.platform_stack import WORKER_CORE, Stack, UserProcess, Watch, idle_until, running
from benchmarks.processes import GATEWAY_CORE, cpu_seconds, resident_mib
from lattice.fhe import artefact

WARM_UP, QUERIES, ALONE = 20, 200, 10
SAMPLES = 100
USERS_CORE = 2 if (os.cpu_count() or 1) > 2 else GATEWAY_CORE
SETTLE_S = 2.0
IMPORTS = 7
STEPS = ("total", "encrypt", "evaluate", "decrypt")

_IMPORT = "import time; t = time.perf_counter(); import lattice; lattice.QueryClient; print(time.perf_counter() - t)"


def measure(seconds: float) -> dict[str, Any]:
    """Everything: `queries`, `concurrency`, `keys`, `import`."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="lattice-platform-") as folder, running(Path(folder)) as stack:
        mlp = _deploy(stack, "mlp", MLP)
        queries = _sequential(stack, mlp)
        rows = [_concurrent(stack, "mlp", "MNIST MLP", mlp, (WORKER_CORE,), 4, seconds)]
        keys = _keys(stack)
        lenet = _deploy(stack, "lenet", LENET)
        rows.append(_concurrent(stack, "lenet", "MNIST LeNet", lenet, (WORKER_CORE,), 2, seconds))
        if (os.cpu_count() or 1) > 1:
            cores = (WORKER_CORE, 2 if (os.cpu_count() or 1) > 2 else GATEWAY_CORE)
            rows.append(_concurrent(stack, "lenet", "MNIST LeNet", lenet, cores, 3, seconds))
    found = {"queries": queries, "concurrency": rows, "keys": keys, "import": _import()}
    return {**found, "findings": findings(found)}


def findings(found: dict[str, Any]) -> list[str]:
    """What the design asked for and this run has not."""
    overhead, keys = found["queries"]["overhead"]["p50_ms"], found["keys"]
    busy = [row for row in found["concurrency"] if not row["shared_core"]]
    reached = (
        (overhead <= 15, f"an overhead of {overhead} ms a query (≤ 15 ms)"),
        (max(row["evaluating"] for row in busy) >= 0.9, "workers evaluating for 90 % of the time"),
        (keys["upload_mb_per_second"] >= 300, f"{keys['upload_mb_per_second']} MB/s of keys (≥ 300 MB/s)"),
        (keys["gateway_above_mib"] < 100, f"{keys['gateway_above_mib']} MiB above the baseline (< 100 MiB)"),
        (found["import"]["seconds"] < 0.3, f"an import of {found['import']['seconds']} s (< 0.3 s)"),
        (not found["queries"]["wrong"], f"{found['queries']['wrong']} answers other than in the clear"),
    )
    return [f"MISSED {text}" for held, text in reached if not held]


def _deploy(stack: Stack, name: str, example: Example) -> Path:
    """Compile here, as a provider may, and deploy; the samples that users ask about with the clear model's labels."""
    path = stack.folder / f"{name}.lattice"
    artefact.save(example.compile(), path)
    stack.deploy(name, path)
    samples = example.data().test[:SAMPLES]
    asked = stack.folder / f"{name}.npz"
    np.savez(asked, x=samples, y=example.labels(example.clear(samples)))
    return asked


# --- one after another ---------------------------------------------------------------------------------------


def _sequential(stack: Stack, samples: Path) -> dict[str, Any]:
    with (
        stack.workers("mlp", (WORKER_CORE,)),
        stack.user("mlp", "alone", USERS_CORE, samples) as user,
    ):
        user.heard()
        user.tell(count=WARM_UP)
        user.heard()
        before = cpu_seconds(stack.pid)
        user.tell(count=QUERIES)
        found = user.heard()
        cpu = cpu_seconds(stack.pid) - before
    steps = {step: _spread(sample[f"{step}_ms"] for sample in found) for step in STEPS}
    rest = [s["total_ms"] - s["encrypt_ms"] - s["evaluate_ms"] - s["decrypt_ms"] for s in found]
    names = found[0]["timings"]
    return {
        "model": "MNIST MLP",
        "queries": len(found),
        "wrong": sum(not sample["right"] for sample in found),
        **steps,
        "overhead": _spread(rest),
        "gateway_cpu_ms": round(cpu / len(found) * 1e3, 2),
        "server_timing": {name: _spread(s["timings"].get(name, 0.0) for s in found) for name in names},
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    """Median and 95th percentile, in milliseconds."""
    ordered = sorted(values)
    return {"p50_ms": round(statistics.median(ordered), 2), "p95_ms": round(ordered[int(0.95 * len(ordered))], 2)}


# --- many at once --------------------------------------------------------------------------------------------


def _concurrent(
    stack: Stack, name: str, title: str, samples: Path, cores: Sequence[int], users: int, seconds: float
) -> dict[str, Any]:
    """Users who ask without a pause, two threads each; the share of the workers' cores that evaluates.

    `evaluating` is the time in which an evaluation was in progress; `useful` counts each at what it takes alone, so
    that what a worker does beside evaluating, on the same core, is not in it.
    """
    with ExitStack() as entered:
        workers = entered.enter_context(stack.workers(name, cores))
        label = f"{len(cores)}-{{}}"
        asking = [
            entered.enter_context(stack.user(name, label.format(number), USERS_CORE, samples))
            for number in range(users)
        ]
        for user in asking:
            user.heard()
        asking[0].tell(count=ALONE)
        alone = statistics.median(sample["evaluate_ms"] for sample in asking[0].heard())
        row = _window(stack, workers, asking, seconds)
        return {
            "model": title,
            "worker_cores": len(cores),
            "shared_core": GATEWAY_CORE in cores,
            "users": users,
            **row,
            "alone_ms": alone,
            "useful": round(alone / 1e3 * row["queries"] / row["seconds"] / len(cores), 4),
        }


def _window(stack: Stack, workers: list[int], asking: list[UserProcess], seconds: float) -> dict[str, Any]:
    begin = time.monotonic() + SETTLE_S
    end = begin + seconds
    for user in asking:
        user.tell(until=end + 0.2, threads=2)
    groups = {"worker": workers, "gateway": [stack.pid], "users": [user.pid for user in asking]}
    idle_until(begin)
    before = {name: sum(map(cpu_seconds, pids)) for name, pids in groups.items()}
    began = time.monotonic()
    idle_until(end)
    wall = time.monotonic() - began
    used = {name: sum(map(cpu_seconds, pids)) - before[name] for name, pids in groups.items()}
    samples = [sample for user in asking for sample in user.heard()]
    inside = [sample for sample in samples if began <= sample["ended"] <= began + wall]
    evaluated = sum(sample["evaluate_ms"] for sample in inside) / 1e3
    return {
        "seconds": round(wall, 2),
        "queries": len(inside),
        "wrong": sum(not sample["right"] for sample in samples),
        "queries_per_second": round(len(inside) / wall, 2),
        "evaluating": round(evaluated / wall / len(workers), 4),
        **{f"{name}_cpu": round(spent / wall, 4) for name, spent in used.items()},
        "evaluate": _spread(sample["evaluate_ms"] for sample in inside),
        "total": _spread(sample["total_ms"] for sample in inside),
    }


# --- keys ----------------------------------------------------------------------------------------------------


def _keys(stack: Stack) -> dict[str, Any]:
    """From the first byte of the first part to the answer that the whole is stored; the check of the keys is apart."""
    path = stack.folder / "many.lattice"
    artefact.save(many_keys(), path)
    stack.deploy("many", path)
    resident = resident_mib(stack.pid)
    with stack.user("many", "alone", USERS_CORE if USERS_CORE else WORKER_CORE) as user, Watch(stack.pid) as watch:
        found = user.heard()
    calls = found["calls"]
    sending, naming, checking = (
        calls[call] for call in ("PUT /v1/uploads/parts", "POST /v1/uploads/complete", "POST /v1/evaluation-keys")
    )
    megabytes, upload_s = found["bytes"] / 1e6, naming[1] - sending[0]
    return {
        "megabytes": round(megabytes, 1),
        "make_s": round(found["made"][1] - found["made"][0], 2),
        "upload_s": round(upload_s, 3),
        "upload_mb_per_second": round(megabytes / upload_s, 1),
        "complete_s": round(naming[1] - naming[0], 3),
        "check_s": round(checking[1] - checking[0], 3),
        "gateway_resident_mib": round(resident, 1),
        "gateway_above_mib": round(watch.own - watch.first, 1),
        "check_mib": round(watch.children, 1),
    }


# --- the import ----------------------------------------------------------------------------------------------


def _import() -> dict[str, Any]:
    times = []
    for _ in range(IMPORTS):
        done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
    return {"name": "import QueryClient", "seconds": round(statistics.median(times), 3)}
