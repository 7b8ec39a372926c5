"""Shapes: how many entries, whether two fit, and the one way to refuse a model."""

from __future__ import annotations

import math

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.graph import Real, Shape

LARGEST = 1 << 28
"""Entries of one tensor or matrix that the compiler will hold: 2 GiB of float64; no encrypted model comes near."""


LARGEST_TENSOR = 1 << 22
"""Entries of one value of one sample: ImageNet's largest have a fifth of that."""


def size(shape: Shape) -> int:
    """Entries of a tensor of this shape."""
    return math.prod(shape)


def refusal(message: str) -> LatticeError:
    """The error for a model that cannot be compiled as it is."""
    return LatticeError("model_unsupported", message)


def bounded(entries: int, what: str, most: int = LARGEST) -> int:
    """The count back, or a refusal before anything of that size is allocated."""
    if entries > most:
        raise refusal(f"{what} has {entries:,} entries; the compiler takes at most {most:,}.")
    return entries


def broadcast(*shapes: Shape) -> Shape:
    """numpy's broadcast shape, or a refusal that names the shapes."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise refusal(f"The shapes {' and '.join(map(str, shapes))} do not fit together.") from None


def aligned(x: Real, rank: int) -> Real:
    """`[batch, …]` with ones put behind the batch until a sample has `rank` axes, so that broadcasting fits."""
    return x.reshape(x.shape[0], *(1,) * (rank + 1 - x.ndim), *x.shape[1:])


def chunks(batch: int, bytes_each: int, limit: int = 1 << 26) -> list[slice]:
    """Slices of a batch such that one takes about `limit` bytes."""
    step = max(1, limit // max(1, bytes_each))
    return [slice(start, start + step) for start in range(0, batch, step)]
