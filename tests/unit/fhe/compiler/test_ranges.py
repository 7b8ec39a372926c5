"""Which features a client is warned of: pixels share a range, columns of a table never do, whatever they look like."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lattice.fhe.answers import OutOfRangeWarning, checked_samples
from lattice.fhe.compiler import operations as ops
from lattice.fhe.compiler.client_part import BESIDE, ClientPart
from lattice.fhe.compiler.front import front
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.importers import Imported
from lattice.fhe.compiler.ranges import are_pixels, feature_ranges

Real = np.ndarray


def random(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def one_hot(count: int = 400, groups: tuple[int, ...] = (8, 5, 12, 3)) -> Real:
    """Category 0 of the first group does not occur."""
    parts = [np.eye(size)[random(size).integers(number == 0, size, count)] for number, size in enumerate(groups)]
    return np.concatenate(parts, axis=1)


def counts(count: int = 400) -> Real:
    """Of most words at most a few; one never occurs."""
    seen = np.minimum(random().poisson(1.5, (count, 24)), 4).astype(float)
    seen[:, 7] = 0.0
    return seen


def heavy_tails(count: int = 400) -> Real:
    return np.floor(random().pareto(1.2, (count, 6)) * 10)


def mixed(count: int = 400) -> Real:
    constant = np.full((count, 1), 3.5)
    return np.concatenate([one_hot(count), counts(count), heavy_tails(count), constant], axis=1)


def warned(samples: Real, query: Real) -> bool:
    """Whether a client of a model that was calibrated on `samples` is warned of the query."""
    low, high = feature_ranges(samples)
    part = ClientPart(samples.shape[1:], 1, (), (), (), (), 1, low, high)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checked_samples(part, query)
    return any(issubclass(one.category, OutOfRangeWarning) for one in caught)


def changed(samples: Real, column: int, value: float) -> Real:
    query = samples[:1].copy()
    query[0, column] = value
    return query


@pytest.mark.parametrize("samples", [one_hot(), counts(), heavy_tails(), mixed(), one_hot(20), counts(20)])
def test_tables_are_no_pictures(samples: Real) -> None:
    assert not are_pixels(samples)
    low, high = feature_ranges(samples)
    np.testing.assert_array_equal(low, samples.min(axis=0))
    np.testing.assert_array_equal(high, samples.max(axis=0))


@pytest.mark.parametrize(
    ("samples", "column", "value"),
    [
        (one_hot(), 0, 1.0),  # a category that calibration never saw
        (counts(), 7, 1.0),  # a word that never occurred
        (counts(), 3, 9.0),
        (mixed(), 0, 1.0),
        (mixed(), -1, 3.6),  # what was always the same
        (heavy_tails(), 2, 1.3 * heavy_tails()[:, 2].max()),
        (heavy_tails(), 2, -0.3 * heavy_tails()[:, 2].max()),
    ],
)
def test_what_calibration_never_saw_is_warned_of(samples: Real, column: int, value: float) -> None:
    assert warned(samples, changed(samples, column, value))


def test_what_calibration_saw_is_not_warned_of() -> None:
    samples = mixed()
    assert not warned(samples, samples)
    assert not warned(samples, changed(samples, -1, np.nextafter(3.5, 4.0)))  # the last bit of a constant


def test_pixels_share_their_range() -> None:
    """Border pixels that were black in all samples may be white, in flat images too."""
    images = load_digits().data
    images = images[:, images.max(axis=0) > 0]
    dark = np.where(np.arange(images.shape[1]) % 9 == 0, 0.0, images)
    assert are_pixels(dark)
    for shape in ((-1, dark.shape[1]), (-1, 1, dark.shape[1], 1)):
        low, high = feature_ranges(dark.reshape(shape))
        assert (low == 0).all()
        assert (high == 16).all()
    assert not warned(dark, changed(dark, 9, 16.0))
    channels = np.stack([np.zeros((5, 8, 8)), np.ones((5, 8, 8))], axis=1) * random().uniform(0, 1, (5, 1, 8, 8))
    low, high = feature_ranges(channels)
    assert (high == np.repeat([0.0, channels.max()], 64)).all()


def model(weights: Real) -> Imported:
    nodes = (
        Node("sum", ops.Dense(weights[None, :], np.zeros(1)), ("x",)),
        Node("act", ops.Activation("tanh"), ("sum",)),
        Node("end", ops.Dense(np.array([[2.0]]), np.zeros(1)), ("act",)),
    )
    return Imported(Graph("x", weights.shape, nodes, "end"), feature_shape=weights.shape)


def test_polynomials_hold_wherever_nobody_is_warned() -> None:
    """One heavy-tailed column makes nearly all of the sum: whatever it is without a warning, the fit must follow."""
    samples = heavy_tails()
    weights = np.array([0.02, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4])
    done = front(model(weights), samples)
    query = samples[:1].copy()
    width = np.ptp(samples[:, 0])
    reached = []
    for share in np.linspace(-BESIDE, 1 + BESIDE, 41):
        query[0, 0] = samples[:, 0].min() + 0.999 * share * width
        assert not warned(samples, query)
        (note,) = done.approximation.fitted
        value = float(query[0] @ weights)
        assert note.low <= value <= note.high
        reached.append(abs(float(done.graph.run(query)[0, 0]) - 2 * np.tanh(value)))
    assert max(reached) <= 2.5 * max(note.max_error for note in done.approximation.fitted)
