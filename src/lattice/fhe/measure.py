"""A compiled model really encrypted, evaluated and decrypted on samples, each part timed; what a report says of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.fhe.answers import Answer, OutOfRangeWarning, checked_samples
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.report_data import AccuracyReport, read_report
from lattice.fhe.run import Blinding, client_keys, decrypt, encrypt, evaluate, prepare

Progress = Callable[[int, int], None]


class Timed(NamedTuple):
    """Answers and times in milliseconds; `encrypt` to `decrypt` are of one query: the median of all but the first."""

    answer: Answer
    queries: int
    keys: float
    prepare: float
    encrypt: float
    evaluate: float
    decrypt: float

    @property
    def times(self) -> dict[str, float]:
        """By name, to the microsecond."""
        return {name: round(getattr(self, name), 3) for name in self._fields[2:]}


def timed(compiled: Compiled, samples: ArrayLike, *, strict: bool = False, progress: Progress | None = None) -> Timed:
    """Client and evaluator in one process, with keys made for this call and wiped after it."""
    part, params = compiled.client, compiled.params
    array = checked_samples(part, samples, strict=strict)
    start = perf_counter()
    keys = client_keys(compiled)
    made = perf_counter()
    prepared = prepare(compiled)
    setup = made - start, perf_counter() - made
    answers, laps = [], []
    with keys.secret:
        for at in range(0, len(array), part.batch):
            chunk, ticks = array[at : at + part.batch], [perf_counter()]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OutOfRangeWarning)  # it was given above, for all samples
                query = encrypt(part, params, keys.secret, chunk)
            ticks.append(perf_counter())
            blinding = Blinding(os.urandom(32), os.urandom(32))
            results = evaluate(prepared, keys.evaluation, keys.public, query, blinding)
            ticks.append(perf_counter())
            answers.append(decrypt(part, params, keys.secret, results, len(chunk)))
            ticks.append(perf_counter())
            laps.append(np.diff(ticks))
            if progress:
                progress(at + len(chunk), len(array))
    # The first query also pays for expanding keys and loading weights, once for all others.
    medians = np.median(np.array(laps[1:] or laps), axis=0)
    return Timed(_joined(answers), len(laps), *(1e3 * float(seconds) for seconds in (*setup, *medians)))


def _joined(answers: list[Answer]) -> Answer:
    values = np.concatenate([answer.values for answer in answers])
    labels: list[Any] = [answer.labels for answer in answers if answer.labels is not None]
    return Answer(values, np.concatenate(labels) if labels else None)


def share_of_equal(one: Answer, truth: ArrayLike) -> float | None:
    """The share of samples whose label is the true one; None where the model gives no labels of that kind."""
    if one.labels is None or np.ndim(one.labels) != 1:
        return None
    return float((as_text(one.labels) == as_text(truth)).mean())


def as_text(labels: Any) -> NDArray[np.str_]:
    """Labels in one form, however they were stored: 3, 3.0 and "3" are the same label."""
    array = np.asarray(labels).reshape(-1)
    if array.dtype.kind == "f" and (array == array.round()).all():
        array = array.astype(np.int64)
    return array.astype(str)


def with_measured(compiled: Compiled, found: Timed, clear: Answer, labels: ArrayLike | None) -> Compiled:
    """The model with a report that says what encryption did to these samples; without labels `clear` is the truth."""
    report = read_report(compiled.report)
    truth = labels if labels is not None else clear.labels
    share = None if truth is None else share_of_equal(found.answer, truth)
    count = len(found.answer.values)
    known = report.accuracy or AccuracyReport(samples=count)
    accuracy = msgspec.structs.replace(known, encrypted=share, encrypted_samples=count)
    totals = msgspec.structs.replace(report.totals, measured_ms=round(found.evaluate, 3))
    return replace(compiled, report=msgspec.structs.replace(report, accuracy=accuracy, totals=totals).to_dict())
