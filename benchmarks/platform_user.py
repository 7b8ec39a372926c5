"""An end user in a process of its own: `python -m benchmarks.platform_user`, told on standard input what to measure.

It says `ready` once it has its keys; every further line of input is a task, every line of output that task's figures.
Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import numpy as np

from lattice.client.encrypted.query import QueryClient


class Sample(NamedTuple):
    """One query. `evaluate_ms` is the worker's signed word, in whole milliseconds, rounded down."""

    ended: float
    total_ms: float
    encrypt_ms: float
    execute_ms: float
    decrypt_ms: float
    evaluate_ms: int
    right: bool
    timings: dict[str, float]


class User:
    """One token, its keys, and the samples to ask about."""

    def __init__(self, client: QueryClient, samples: Any, labels: list[int]) -> None:
        self._client, self._samples, self._labels = client, samples, labels

    def ask(self, number: int) -> Sample:
        """One sample, step by step."""
        at = number % len(self._samples)
        begun = time.monotonic()
        asked = self._client.encrypt(self._samples[at : at + 1])
        encrypted = time.monotonic()
        result = self._client.execute(asked)
        executed = time.monotonic()
        answer = self._client.decrypt(result)
        ended = time.monotonic()
        right = int(np.argmax(answer.values[0])) == self._labels[at]
        return Sample(
            ended,
            (ended - begun) * 1e3,
            (encrypted - begun) * 1e3,
            (executed - encrypted) * 1e3,
            (ended - executed) * 1e3,
            result.receipt.milliseconds,
            right,
            result.timings,
        )

    def until(self, end: float, threads: int) -> list[Sample]:
        """Ask one after the other in each of so many threads until the time is up."""
        found: list[Sample] = []

        def loop(first: int) -> None:
            number = first
            while time.monotonic() < end:
                found.append(self.ask(number))
                number += threads

        running = [threading.Thread(target=loop, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return found


class Calls:
    """When each kind of call to the gateway began first and ended last."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {}

    def begun(self, request: httpx2.Request) -> None:
        """Before it is sent."""
        self.seen.setdefault(_kind(request), [time.monotonic(), 0.0])

    def ended(self, response: httpx2.Response) -> None:
        """When the answer's head is there."""
        self.seen[_kind(response.request)][1] = time.monotonic()


def _kind(request: httpx2.Request) -> str:
    """Its method, and its path without what names one upload or one part of it."""
    words = [word for word in request.url.path.split("/") if "_" not in word and not word.isdigit()]
    return f"{request.method} {'/'.join(words)}"


def keys(client: QueryClient, calls: Calls) -> dict[str, Any]:
    """Make the keys, upload and register them: their size, and when each step began and ended."""
    seen: dict[str, list[float]] = {}
    size = 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal size
        times = seen.setdefault(stage, [time.monotonic()])
        times[1:] = [time.monotonic()]
        size = total if stage == "upload keys" else size

    client.keys.ensure(progress)
    return {"made": seen["make keys"], "calls": calls.seen, "bytes": size}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--samples", type=Path, help="an .npz with `x` and the clear model's labels `y`")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    calls = Calls()
    hooks = {"request": [calls.begun], "response": [calls.ended]}
    http = httpx2.Client(event_hooks=hooks, timeout=300, trust_env=False)
    with http, QueryClient(given.token, base_url=given.url, folder=given.folder, http_client=http) as client:
        _say(keys(client, calls))
        hooks.clear()
        if given.samples is None:
            return
        found = np.load(given.samples)
        user = User(client, found["x"], found["y"].tolist())
        for line in sys.stdin:
            task = json.loads(line)
            if "count" in task:
                _say([user.ask(number)._asdict() for number in range(task["count"])])
            else:
                _say([sample._asdict() for sample in user.until(task["until"], task["threads"])])


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
