"""Which label a classifier's results stand for, where the model's file stops before the choice.

Networks are mostly exported with their scores as results. Given true labels that are numbers of classes, the client
takes the class of the highest score; where one result is a probability, it asks whether that is above a half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import After, ArgMax, LogSoftmax, Sigmoid, Softmax, Threshold
from lattice.fhe.compiler.client_steps import finish, prepare
from lattice.fhe.compiler.importers.imported import Imported

SAMPLES = 64
"""Calibration samples that are looked at to see whether a result is a probability."""


def with_choice(
    model: Imported, samples: ArrayLike, labels: ArrayLike | None, classes: Sequence[str] | None = None
) -> Imported:
    """The model that ends in labels: of these classes, or numbered like the true `labels`; as it was where it has a
    choice already, or where its results are no scores of classes."""
    if any(not isinstance(step, Sigmoid | Softmax | LogSoftmax) for step in model.after):
        return model
    results = int(np.prod(model.graph.output_shape))
    wanted = max(results, 2)
    if classes and len(classes) != wanted:
        raise LatticeError(
            "invalid_request", f"{len(classes)} classes were named; the model's results are of {wanted}."
        )
    if not classes and not _are_classes(labels, wanted):
        return model
    choice = _choice(model, samples, results, tuple(classes or ()))
    return model if choice is None else replace(model, after=(*model.after, choice))


def _are_classes(labels: ArrayLike | None, count: int) -> bool:
    """Whole numbers from 0 to count − 1."""
    if labels is None:
        return False
    array: NDArray[Any] = np.asarray(labels)
    if array.dtype.kind not in "iufb" or not array.size:
        return False
    return bool((array == array.round()).all() and array.min() >= 0 and array.max() < count)


def _choice(model: Imported, samples: ArrayLike, results: int, classes: tuple[str, ...]) -> After | None:
    if results > 1:
        return ArgMax(classes)
    shape = model.feature_shape or model.graph.input_shape
    some = np.asarray(samples, dtype=np.float64)[:SAMPLES]
    if some.size != len(some) * int(np.prod(shape)):
        return None  # `compile` says what is wrong with them
    values = model.graph.run(prepare(model.before, some.reshape(len(some), *shape))).reshape(len(some), -1)
    scores = finish(model.after, values).values
    return Threshold(0.5, classes) if scores.min() >= 0 and scores.max() <= 1 else None
