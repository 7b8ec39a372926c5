"""What the client does in the clear, done: features before packing, results after decryption. numpy only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import (
    After,
    ArgMax,
    Before,
    Largest,
    LogSoftmax,
    Neighbours,
    Sigmoid,
    Softmax,
    Threshold,
    Vote,
)
from lattice.fhe.compiler.graph import Real


class Finished(NamedTuple):
    """Values after the numeric steps, and labels (or, for `Largest`, indices) where a step gives them."""

    values: Real
    labels: NDArray[np.str_] | NDArray[np.int64] | None = None


def prepare(steps: Iterable[Before], features: Real) -> Real:
    """The features `[batch, …]` that are packed."""
    x = np.asarray(features, dtype=np.float64)
    for step in steps:
        x = step.apply(x)
    return x


def finish(steps: Iterable[After], results: Real) -> Finished:
    """What the user sees of decrypted results `[batch, results]`."""
    done = Finished(np.asarray(results, dtype=np.float64))
    for step in steps:
        done = _finished(step, done)
    return done


def _finished(step: After, done: Finished) -> Finished:
    values = done.values
    if isinstance(step, Sigmoid):
        return Finished(0.5 + 0.5 * np.tanh(values / 2))
    if isinstance(step, Softmax | LogSoftmax):
        shifted = values - values.max(axis=1, keepdims=True)
        logarithm = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return Finished(logarithm if isinstance(step, LogSoftmax) else np.exp(logarithm))
    if isinstance(step, ArgMax):
        return done._replace(labels=_named(values.argmax(axis=1), step.labels))
    if isinstance(step, Threshold):
        return done._replace(labels=_named((values[:, 0] > step.value).astype(np.int64), step.labels))
    if isinstance(step, Largest):
        order = np.argsort(values if step.smallest else -values, axis=1, kind="stable")[:, : step.count]
        return Finished(np.take_along_axis(values, order, axis=1), order.astype(np.int64))
    if isinstance(step, Vote):
        return done._replace(labels=_named(_votes(values, len(step.labels)).argmax(axis=1), step.labels))
    if isinstance(step, Neighbours):
        nearest = np.argsort(-values, axis=1, kind="stable")[:, : step.count]
        members = np.asarray(step.members, dtype=np.int64)[nearest]
        count = (members[:, :, None] == np.arange(len(step.labels))).sum(axis=1)
        return done._replace(labels=_named(count.argmax(axis=1), step.labels))
    raise LatticeError("program_invalid", f"The client does not know the step {type(step).__name__}.")


def _votes(values: Real, classes: int) -> NDArray[np.int64]:
    """`[batch, classes]`: how many pairs each class wins."""
    votes = np.zeros((len(values), classes), dtype=np.int64)
    pairs = ((first, second) for first in range(classes) for second in range(first + 1, classes))
    for column, (first, second) in enumerate(pairs):
        ahead = values[:, column] > 0
        votes[ahead, first] += 1
        votes[~ahead, second] += 1
    return votes


def _named(index: NDArray[np.int64], labels: tuple[str, ...]) -> NDArray[np.str_] | NDArray[np.int64]:
    return np.asarray(labels)[index] if labels else index
