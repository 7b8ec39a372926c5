"""What encryption and approximation cost in accuracy, on samples that calibration did not see.

The model in the clear is the imported graph. The simulated one is the graph after the passes, activations fitted, with
normal noise of the predicted deviation on every result. Where the client ends with a choice (a label), the share of
right ones counts; without true labels the clear model's own choices are the truth. Where it gives numbers, the error
beside the numbers' spread counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import After, LogSoftmax, Sigmoid, Softmax
from lattice.fhe.compiler.client_steps import finish, prepare
from lattice.fhe.compiler.graph import Real
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.levels.options import Options

Labels = NDArray[np.generic]
ROUNDING = 1e-9
"""1 − 0.995 is a little more than 0.005."""


class Accuracy(NamedTuple):
    """Shares from 0 to 1, or R² for numbers."""

    samples: int
    metric: str
    clear: float
    simulated: float
    agreement: float
    """Share of equal choices; for numbers R² of the simulated against the clear."""
    max_error: float
    """Of a result before the client's steps."""
    relative_error: float
    """Root mean square error beside the results' spread."""
    outside: int = 0
    """Samples on which a value leaves its calibrated range by so much that the encrypted result wraps around or a
    polynomial explodes. Their choices count as wrong; their errors are left out."""

    @property
    def lost(self) -> float:
        """What the tolerance is compared with."""
        return self.clear - self.simulated if self.metric == "accuracy" else self.relative_error


def measure(
    original: Imported,
    fitted: Imported,
    samples: Real,
    labels: ArrayLike | None,
    deviation: float,
    reach: Mapping[str, float],
    *,
    seed: int = 0,
) -> Accuracy:
    """Both models on the same samples `[count, *feature_shape]`; `reach` bounds values of the fitted graph by name."""
    clear, exact = (model.graph.run(prepare(model.before, samples)) for model in (original, fitted))
    clear, exact = clear.reshape(len(samples), -1), exact.reshape(len(samples), -1)
    simulated = exact + np.random.default_rng(seed).normal(0.0, deviation, exact.shape)
    moved = len(original.after) != len(fitted.after)
    if moved:  # a pass gave a last step to the client: compare what both clients see, before they choose
        clear, simulated = _seen(original, clear), _seen(fitted, simulated)
    choices = [[step for step in model.after if _chooses(step) or not moved] for model in (original, fitted)]
    inside = ~beyond(fitted, samples, reach)
    error = (simulated - clear)[inside]
    largest, spread = float(np.abs(error).max(initial=0.0)), float(clear.std()) or 1.0
    relative = float(np.sqrt((error**2).mean())) / spread if error.size else float("inf")
    theirs, ours = finish(choices[0], clear).labels, finish(choices[1], simulated).labels
    if theirs is None and is_class(labels, clear):
        theirs, ours = clear.argmax(axis=1), simulated.argmax(axis=1)
    if ours is None or theirs is None or ours.ndim != 1:
        kept = None if labels is None else np.asarray(labels, dtype=np.float64)[inside]
        found = _numbers(clear[inside], simulated[inside], kept, largest, relative)
    else:
        truth = theirs if labels is None else _matching(labels, theirs)
        clear_share, our_share = float((theirs == truth).mean()), float(((ours == truth) & inside).mean())
        agreement = float(((ours == theirs) & inside).mean())
        found = Accuracy(0, "accuracy", clear_share, our_share, agreement, largest, relative)
    return found._replace(samples=len(samples), outside=int((~inside).sum()))


def is_class(labels: ArrayLike | None, results: Real) -> bool:
    """Whether labels are numbers of classes, for a model that gives a score for each and leaves the choice open."""
    given = np.asarray(labels if labels is not None else [])
    whole = given.shape == (len(results),) and bool(np.isin(given, np.arange(results.shape[1])).all())
    return whole and results.shape[1] > 1


def beyond(model: Imported, samples: Real, reach: Mapping[str, float]) -> NDArray[np.bool_]:
    """For each sample whether a value of the graph is larger than `reach` says it may be."""
    values = model.graph.trace(prepare(model.before, samples))
    out = np.zeros(len(samples), dtype=np.bool_)
    for name, limit in reach.items():
        out |= np.abs(values[name].reshape(len(samples), -1)).max(axis=1) > limit
    return out


def _seen(model: Imported, values: Real) -> Real:
    return finish([step for step in model.after if not _chooses(step)], values).values


def _chooses(step: After) -> bool:
    """Whether a client's step gives labels or indices."""
    return not isinstance(step, Sigmoid | Softmax | LogSoftmax)


def _matching(labels: ArrayLike, choices: Labels) -> Labels:
    """True labels in the form that the client's steps give: names as text, indices as numbers."""
    truth = np.asarray(labels).reshape(-1)
    if truth.shape != choices.shape:
        raise LatticeError("calibration_invalid", f"There are {truth.size} labels for {choices.size} samples.")
    return truth.astype(str) if choices.dtype.kind == "U" else truth.astype(np.int64)


def _numbers(clear: Real, simulated: Real, labels: ArrayLike | None, largest: float, relative: float) -> Accuracy:
    agreement = _r_squared(simulated, clear)
    scores = 1.0, agreement
    if labels is not None:
        truth = np.asarray(labels, dtype=np.float64).reshape(len(clear), -1)
        if truth.shape == clear.shape:
            scores = _r_squared(clear, truth), _r_squared(simulated, truth)
    return Accuracy(len(clear), "R²", scores[0], scores[1], agreement, largest, relative)


def _r_squared(found: Real, truth: Real) -> float:
    total = float(((truth - truth.mean(axis=0)) ** 2).sum())
    return 1.0 - float(((found - truth) ** 2).sum()) / total if total else 1.0


def require(accuracy: Accuracy, options: Options) -> None:
    """`model_inaccurate` where too much is lost, unless that was allowed."""
    tolerance = options.allowed(accuracy.metric, accuracy.samples)
    if accuracy.lost <= tolerance + ROUNDING or options.allow_inaccurate:
        return
    if accuracy.metric == "accuracy":
        what = f"{accuracy.simulated:.2%} of {accuracy.samples} samples instead of {accuracy.clear:.2%}"
    else:
        what = f"an error of {accuracy.relative_error:.2%} of the results' spread"
    raise LatticeError(
        "model_inaccurate",
        f"Simulated under encryption the model gives {what}; the tolerance is {tolerance:.2%}.",
        details={"lost": accuracy.lost, "tolerance": tolerance},
    )
