"""Our row of one workload of `benchmarks.encrypted_models`, in one pinned process: JSON on standard output.

`evaluate_ms` is what the server does with a query: seed expansion, the program, blinding. Peers' are the same step.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.model_workloads import WORKLOADS, Workload
from lattice.fhe.ckks.security import max_log_qp
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.run import Blinding, client_keys, decrypt, encrypt, evaluate, prepare, request_hash
from lattice.fhe.serialise.ciphertexts import encode_ciphertext
from lattice.fhe.serialise.keys import encode_evaluation_keys

Real = NDArray[np.floating[Any]]
PROGRESS, REPORTED = "…", 100
"""How a line of progress on standard error begins, and after how many queries there is one."""


class Taken(NamedTuple):
    """Seconds of every query, stage by stage."""

    encrypt: list[float]
    evaluate: list[float]
    decrypt: list[float]


@dataclass
class Stopwatch:
    """Client and evaluator of one compiled model, timed."""

    compiled: Compiled

    def __post_init__(self) -> None:
        self.keys_s, self.keys = clock(lambda: client_keys(self.compiled))
        self.prepare_s, self.prepared = clock(lambda: prepare(self.compiled))
        self.taken = Taken([], [], [])
        # Errors are those of scores: a sigmoid at the end would hide them.
        self.part = replace(self.compiled.client, after=())

    def query(self, samples: Real, record: bool = True) -> Real:
        """One batch through all three stages."""
        part, params, keys = self.part, self.compiled.params, self.keys
        encrypting, sent = clock(lambda: encrypt(part, params, keys.secret, samples))
        evaluating, results = clock(lambda: self._evaluate(sent))
        decrypting, answer = clock(lambda: decrypt(part, params, keys.secret, results, len(samples)))
        if record:
            for stage, seconds in zip(self.taken, (encrypting, evaluating, decrypting), strict=True):
                stage.append(seconds)
        self.sent, self.returned = sent, results
        return answer.values

    def _evaluate(self, sent: list[Any]) -> list[Any]:
        full = [ciphertext.expand(self.compiled.params) for ciphertext in sent]
        blinding = Blinding(b"b" * 32, request_hash(self.compiled.program.id, self.keys.public, full))
        return evaluate(self.prepared, self.keys.evaluation, self.keys.public, full, blinding)

    def sizes(self) -> dict[str, int]:
        """Bytes on the wire and in the evaluator's memory."""
        params = self.compiled.params
        return {
            "key_bytes": len(encode_evaluation_keys(self.keys.evaluation)) if self.compiled.keys else 0,
            "keys": len(self.compiled.keys),
            "ciphertext_bytes": sum(len(encode_ciphertext(one, params)) for one in self.sent),
            "answer_bytes": sum(len(encode_ciphertext(one, params)) for one in self.returned),
            "weight_bytes": self.prepared.weight_bytes,
        }


def clock(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came back."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def row(workload: Workload, seconds: float, accuracy_samples: int) -> dict[str, Any]:
    """Compile, run, measure."""
    compile_s, compiled = clock(workload.compile)
    watch = Stopwatch(compiled)
    samples = workload.samples(accuracy_samples)
    values = _run(watch, samples, seconds)
    clear = workload.example.clear(samples, scores=True)
    times = {f"{name}_ms": _milliseconds(stage) for name, stage in watch.taken._asdict().items()}
    batch = compiled.client.batch
    return {
        "workload": workload.name,
        "ours_ms": times["evaluate_ms"],
        **times,
        "best_ms": round(min(watch.taken.evaluate) * 1e3, 4),
        "rows": batch,
        "rows_per_second": round(batch / times["evaluate_ms"] * 1e3),
        **watch.sizes(),
        "max_error": float(np.abs(values - clear).max()),
        **workload.accuracy(values, clear),
        "compile_s": round(compile_s, 2),
        "keys_s": round(watch.keys_s, 3),
        "prepare_s": round(watch.prepare_s, 3),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        **_security(compiled),
    }


def _run(watch: Stopwatch, samples: Real, seconds: float) -> Real:
    """All samples for accuracy, and again until the time is up; the first query warms up."""
    batch = watch.compiled.client.batch
    chunks = [samples[k : k + batch] for k in range(0, len(samples), batch)]
    watch.query(chunks[0], record=False)
    values = []
    for done, chunk in enumerate(chunks):
        if done and done % REPORTED == 0:
            print(f"{PROGRESS} {done} of {len(chunks)} queries", file=sys.stderr, flush=True)
        values.append(watch.query(chunk))
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(watch.taken.evaluate) < 3:
        watch.query(chunks[0])
    return np.concatenate(values)


def _milliseconds(times: list[float]) -> float:
    return round(statistics.median(times) * 1e3, 4)


def _security(compiled: Compiled) -> dict[str, Any]:
    params = compiled.params
    log_qp = params.log_qp
    return {
        "log_n": params.log_n,
        "log_qp": round(log_qp, 1),
        "log_qp_bound": max_log_qp(params.log_n),
        "security_bits": 128 if log_qp <= max_log_qp(params.log_n) else 0,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--samples", type=int, default=100)
    given = parser.parse_args()
    warnings.simplefilter("once")
    json.dump(row(WORKLOADS[given.workload], given.seconds, given.samples), sys.stdout)


if __name__ == "__main__":
    main()
