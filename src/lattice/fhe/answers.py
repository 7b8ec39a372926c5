"""What a client does in the clear around a query: features into slots, decrypted slots into results. No secret."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import (
    After,
    AppendSquaredLength,
    ArgMax,
    Before,
    ClientPart,
    Largest,
    Normalise,
    Packed,
    Sigmoid,
    Softmax,
    Threshold,
    ToUnit,
)

Real = NDArray[np.float64]


class OutOfRangeWarning(UserWarning):
    """A feature lies outside the range that the model was calibrated on: the result may be wrong."""


class Answer(NamedTuple):
    """What the model says."""

    values: Real
    """`[samples, results]` after the client's steps."""
    labels: list[str] | NDArray[np.int64] | None = None
    """One for each sample where the model ends in a choice; for `Largest` the indices `[samples, count]`."""


def checked_samples(part: ClientPart, samples: ArrayLike, *, strict: bool = False) -> Real:
    """`[count, *feature_shape]` of finite numbers; out of the calibrated range is warned of, or refused if `strict`."""
    try:
        array = np.asarray(samples, dtype=np.float64)
    except (TypeError, ValueError):
        raise LatticeError("input_invalid", "The samples are not an array of real numbers.") from None
    if array.shape == part.feature_shape:
        array = array[None]
    if array.shape[1:] != part.feature_shape or not array.ndim or not len(array):
        wanted = ", ".join(map(str, ("samples", *part.feature_shape)))
        raise LatticeError("input_invalid", f"The samples have the shape {array.shape}, not [{wanted}].")
    if not np.isfinite(array).all():
        raise LatticeError("input_invalid", "A feature is infinite or not a number.")
    _check_range(part, array, strict)
    return array


def _check_range(part: ClientPart, array: Real, strict: bool) -> None:
    flat = array.reshape(len(array), -1)
    if part.low.shape != flat.shape[1:]:
        return
    slack = 1e-9 * (part.high - part.low)
    outside = (flat < part.low - slack) | (flat > part.high + slack)
    if not outside.any():
        return
    where = sorted(set(np.nonzero(outside)[1].tolist()))
    shown = ", ".join(map(str, where[:5])) + (" …" if len(where) > 5 else "")
    message = f"{int(outside.any(axis=1).sum())} samples lie outside the calibrated range (features {shown})."
    if strict:
        raise LatticeError("input_invalid", message)
    warnings.warn(f"{message} The result may be wrong.", OutOfRangeWarning, stacklevel=4)


def slots_of(part: ClientPart, samples: Real) -> list[Real]:
    """For each ciphertext of one query the numbers in its slots; missing samples of the batch are zeros."""
    if len(samples) > part.batch:
        raise LatticeError("input_invalid", f"One query takes {part.batch} samples, not {len(samples)}.")
    features = samples.reshape(len(samples), -1)
    for step in part.before:
        features = _before(step, features)
    padded = np.zeros((part.batch, features.shape[1]))
    padded[: len(features)] = features
    flat = padded.reshape(-1)
    return [_gathered(flat, packed) for packed in part.inputs]


def _gathered(flat: Real, packed: Packed) -> Real:
    if len(packed.entries) and int(packed.entries.max()) >= len(flat):
        raise LatticeError("input_invalid", f"The model wants {int(packed.entries.max()) + 1} features a query.")
    return np.where(packed.entries >= 0, flat[np.maximum(packed.entries, 0)], 0.0)


def results_of(part: ClientPart, decrypted: Sequence[Real]) -> Real:
    """`[batch, results]`, each the mean of the slots that hold it."""
    total = np.zeros(part.batch * part.results)
    count = np.zeros(part.batch * part.results)
    for packed, slots in zip(part.outputs, decrypted, strict=True):
        held = packed.entries >= 0
        np.add.at(total, packed.entries[held], slots[held])
        np.add.at(count, packed.entries[held], 1.0)
    if not count.all():
        raise LatticeError("program_invalid", "The client part has no place for some of the results.")
    return (total / count).reshape(part.batch, part.results)


def answer_of(part: ClientPart, results: Real) -> Answer:
    """The client's steps on results `[samples, results]`."""
    answer = Answer(results)
    for step in part.after:
        answer = _after(step, answer)
    return answer


def _before(step: Before, features: Real) -> Real:
    squares = (features**2).sum(axis=1, keepdims=True)
    if isinstance(step, Normalise):
        return features / np.maximum(np.sqrt(squares), 1e-300)
    if isinstance(step, AppendSquaredLength):
        return np.concatenate([features, squares], axis=1)
    if isinstance(step, ToUnit):
        return step.apply(features)
    raise LatticeError("program_invalid", f"The client part has the unknown step {type(step).__name__}.")


def _after(step: After, answer: Answer) -> Answer:
    values = answer.values
    if isinstance(step, Sigmoid):
        return answer._replace(values=0.5 * (1.0 + np.tanh(values / 2.0)))
    if isinstance(step, Softmax):
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return answer._replace(values=powers / powers.sum(axis=1, keepdims=True))
    if isinstance(step, ArgMax):
        return answer._replace(labels=_named(values.argmax(axis=1), step.labels))
    if isinstance(step, Threshold):
        return answer._replace(labels=_named((values[:, 0] > step.value).astype(np.int64), step.labels))
    if isinstance(step, Largest):
        order = np.argsort(values if step.smallest else -values, axis=1, kind="stable")[:, : step.count]
        return Answer(np.take_along_axis(values, order, axis=1), order)
    raise LatticeError("program_invalid", f"The client part has the unknown step {type(step).__name__}.")


def _named(indices: NDArray[np.int64], labels: tuple[str, ...]) -> list[str] | NDArray[np.int64]:
    if not labels:
        return indices
    if len(indices) and int(indices.max()) >= len(labels):
        raise LatticeError("program_invalid", f"The client part has {len(labels)} labels and more results.")
    return [labels[index] for index in indices]
