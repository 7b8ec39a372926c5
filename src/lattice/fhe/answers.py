"""What a client does in the clear around a query: features into slots, decrypted slots into results. No secret."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import BESIDE, ClientPart, Packed
from lattice.fhe.compiler.client_steps import finish, prepare

Real = NDArray[np.float64]
ROUNDING = 1e-6
"""A feature that never changed in calibration may differ in its last bits."""


class OutOfRangeWarning(UserWarning):
    """A feature lies well outside the range that the model was calibrated on: the result may be wrong."""


class Answer(NamedTuple):
    """What the model says."""

    values: Real
    """`[samples, results]` after the client's steps."""
    labels: NDArray[np.str_] | NDArray[np.int64] | None = None
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
    slack = BESIDE * (part.high - part.low) + ROUNDING * np.maximum(np.abs(part.low), np.abs(part.high))
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
    """For each ciphertext of one query the numbers in its slots; the last sample stands for those that are missing:
    zeros may lie where polynomials explode, and then their modulus wraps around for all."""
    if len(samples) > part.batch:
        raise LatticeError("input_invalid", f"One query takes {part.batch} samples, not {len(samples)}.")
    features = prepare(part.before, samples).reshape(len(samples), -1)
    missing = part.batch - len(features)
    flat = np.concatenate([features, np.repeat(features[-1:], missing, axis=0)]).reshape(-1)
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
    return Answer(*finish(part.after, results))


def joined(answers: Sequence[Answer]) -> Answer:
    """The answers of several queries as one."""
    labels = [answer.labels for answer in answers if answer.labels is not None]
    values = np.concatenate([answer.values for answer in answers])
    return Answer(values, np.concatenate(labels) if labels else None)  # type: ignore[arg-type]
