"""The few digits that are committed, so that the demo and the first pages of the docs need no download.

`python -m examples.models.mnist_mlp.few` writes them anew: `calibration.npz` has the first images of MNIST's training
half, `digits.npz` the first of its test half that have ink only where some calibration image has. The compiler knows
the ranges of pixels from the calibration images, and warns of others; with the 1,000 of `run.py` that is rare.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from examples.models.data import mnist
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
CALIBRATION, DIGITS = 200, 20
Arrays = dict[str, NDArray[np.generic]]


def chosen() -> dict[str, Arrays]:
    """By file, the arrays `x` `[images, 1, 28, 28]` from 0 to 1 and `y`, the digits that they show."""
    data = mnist.load()
    seen = data.train[:CALIBRATION]
    inked = seen.max(axis=0) > 0
    fits = np.flatnonzero(~((data.test > 0) & ~inked).any(axis=(1, 2, 3)))[:DIGITS]
    return {
        "calibration.npz": {"x": seen, "y": data.train_labels[:CALIBRATION].astype(np.uint8)},
        "digits.npz": {"x": data.test[fits], "y": data.test_labels[fits].astype(np.uint8)},
    }


if __name__ == "__main__":
    for name, arrays in chosen().items():
        np.savez_compressed(FOLDER / name, allow_pickle=False, **arrays)
