"""A database for similarity search: 50,000 MNIST images as unit vectors of 128 principal components."""

from __future__ import annotations

from functools import cache

import numpy as np
from examples.models.data import mnist
from examples.models.data.dataset import Dataset
from numpy.typing import NDArray

ROWS, WIDTH = 50_000, 128


@cache
def load() -> Dataset:
    """`train` is the database with the digits as labels, `test` the queries; every row has length 1."""
    digits = mnist.load()
    images = digits.train[:ROWS].reshape(ROWS, -1)
    mean = images.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((images - mean).T.astype(np.float64)))
    # A column's sign is the solver's choice: fix it, or the data's hash differs between machines.
    basis = vectors[:, : -WIDTH - 1 : -1]
    basis = (basis * np.sign(basis[np.abs(basis).argmax(axis=0), np.arange(WIDTH)])).astype(np.float32)
    queries = digits.test.reshape(len(digits.test), -1)
    return Dataset(
        "similarity",
        f"128 principal components of {digits.source}",
        _unit((images - mean) @ basis),
        digits.train_labels[:ROWS],
        _unit((queries - mean) @ basis),
        digits.test_labels,
        digits.labels,
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
