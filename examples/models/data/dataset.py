"""A data set as the examples use it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float32]
Labels = NDArray[np.int64]


class Dataset(NamedTuple):
    """Samples in rows; the test half was never seen in training."""

    name: str
    source: str
    """The package that it came out of, with its licence."""
    train: Real
    train_labels: Labels
    test: Real
    test_labels: Labels
    labels: tuple[str, ...]
    """What label 0, 1, … is called."""

    @property
    def sha256(self) -> str:
        """Of every sample and label: a model's record names it, so that accuracy is never quoted on other data."""
        digest = hashlib.sha256()
        for array in (self.train, self.train_labels, self.test, self.test_labels):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def split(
    name: str,
    source: str,
    samples: NDArray[np.floating],
    labels: NDArray[np.integer],
    names: tuple[str, ...],
    seed: int,
) -> Dataset:
    """A quarter is held out, chosen by the seed."""
    order = np.random.default_rng(seed).permutation(len(samples))
    held = len(samples) // 4
    test, train = order[:held], order[held:]
    x, y = samples.astype(np.float32), labels.astype(np.int64)
    return Dataset(name, source, x[train], y[train], x[test], y[test], names)
