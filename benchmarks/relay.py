"""What the gateway adds to a request: through the sealed relay, beside the direct path to the model server.

Key check, sealing (X-Wing), receipt check and the durable ledger are all on. The gateway has core 0 to itself; load
generator and instant runtime share core 1. Each figure's direct twin is measured next to it, in the same run.
"""

from __future__ import annotations

import json
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load import Result, make_request, run_load
from benchmarks.processes import GATEWAY_CORE, LOAD_CORE, cpu_seconds, gateway, pin, resident_mib, started

PROMPT = "hello " * 40
GRANT_MICRO = 10**15
HOSTED = "lattice:smollm2-135m-instruct"


def measure(seconds: float) -> list[dict[str, Any]]:
    """All rows."""
    pin(LOAD_CORE)
    rows = []
    with tempfile.TemporaryDirectory(prefix="lattice-bench-") as folder, stack(Path(folder)) as paths:
        for name, stream, concurrency in (
            ("chat", False, 1),
            ("chat", False, 16),
            ("chat", False, 64),
            ("stream", True, 1),
            ("stream", True, 16),
        ):
            for kind in ("personal", "hosted"):
                rows.append(paths.row(name, kind, stream, concurrency, seconds))  # noqa: PERF401
    return rows


class Paths:
    """The direct path and the relayed ones."""

    def __init__(self, direct: str, url: str, key: str, pid: int, models: dict[str, str]) -> None:
        self._direct = f"{direct}/v1/chat/completions"
        self._url = f"{url}/v1/chat/completions"
        self._key = key
        self.pid = pid
        self._models = models

    def row(self, name: str, kind: str, stream: bool, concurrency: int, seconds: float) -> dict[str, Any]:
        """One figure and its direct twin."""
        direct = self._run(self._direct, "direct", stream, concurrency, seconds)
        before = cpu_seconds(self.pid)
        begun = time.perf_counter()
        ours = self._run(self._url, self._models[kind], stream, concurrency, seconds)
        wall = time.perf_counter() - begun
        cpu = cpu_seconds(self.pid) - before
        done = len(ours.samples) * wall / seconds
        return {
            "name": f"{name}/{kind}",
            "concurrency": concurrency,
            "requests_per_second": round(ours.per_second, 1),
            "gateway_cpu_ms": round(cpu / done * 1000, 3),
            "requests_per_core_second": round(done / cpu, 1),
            "p50_ms": round(ours.percentile(0.5), 3),
            "p99_ms": round(ours.percentile(0.99), 3),
            "first_byte_p50_ms": round(ours.percentile(0.5, first_byte=True), 3),
            "direct_requests_per_second": round(direct.per_second, 1),
            "direct_p50_ms": round(direct.percentile(0.5), 3),
            "direct_p99_ms": round(direct.percentile(0.99), 3),
            "direct_first_byte_p50_ms": round(direct.percentile(0.5, first_byte=True), 3),
            "added_p50_ms": round(ours.percentile(0.5) - direct.percentile(0.5), 3),
            "added_p99_ms": round(ours.percentile(0.99) - direct.percentile(0.99), 3),
            "added_first_byte_ms": round(
                ours.percentile(0.5, first_byte=True) - direct.percentile(0.5, first_byte=True), 3
            ),
            "errors": ours.errors + direct.errors,
            "gateway_mib": round(resident_mib(self.pid), 1),
        }

    def _run(self, url: str, model: str, stream: bool, concurrency: int, seconds: float) -> Result:
        body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "stream": stream, "max_tokens": 64}
        headers = {"content-type": "application/json", "authorization": f"Bearer {self._key}"}
        request = make_request(url, json.dumps(body).encode(), headers)
        return uvloop.run(run_load(url, request, concurrency, seconds))


@contextmanager
def stack(folder: Path) -> Iterator[Paths]:
    """Gateway, one personal and one hosted instant runtime, and the direct server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        gateway(folder) as (process, ready),
        started(GATEWAY_CORE, "benchmarks.direct_server", "--port", str(port)),
        _instant(ready, "personal") as personal,
        _instant(ready, "hosted"),
    ):
        _grant(ready)
        pin(GATEWAY_CORE, process.pid)
        direct = f"http://127.0.0.1:{port}"
        _wait(direct)
        models = {"personal": f"lattice:personal:{personal}", "hosted": HOSTED}
        yield Paths(direct, ready["url"], ready["key"], process.pid, models)


@contextmanager
def _instant(ready: dict[str, str], kind: str) -> Iterator[str]:
    arguments = ("--gateway", ready["url"], "--key", ready["key"], "--kind", kind)
    with started(LOAD_CORE, "benchmarks.instant_runtime", *arguments) as process:
        assert process.stdout is not None
        runtime = process.stdout.readline().strip()
        time.sleep(0.5)
        yield runtime


def _grant(ready: dict[str, str]) -> None:
    body = {"account": ready["account"], "amount_micro": GRANT_MICRO, "reason": "benchmark"}
    headers = {"authorization": f"Bearer {ready['key']}", "content-type": "application/json"}
    url = f"{ready['url']}/v1/credits/grants"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)).read()


def _wait(url: str) -> None:
    for _ in range(100):
        try:
            request = urllib.request.Request(f"{url}/v1", b'{"model":"m"}')
            urllib.request.urlopen(request).read()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the direct server does not answer")
