"""What the client does in the clear, as data: preparing features, packing slots, reading results. No code travels."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding

BESIDE = 0.25
"""How far a feature may lie beside its calibrated range, as a part of it, before anybody is warned: fits and moduli
have more room than that. Of 1,000 calibration samples the extremes are no bounds: without it every tenth query of
unseen data of the same kind was warned of, with it one in 140 (breast cancer) or in 1000."""


class Before(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step"):
    """A step on features `[batch, …]` before packing."""

    def apply(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """The step done."""
        raise LatticeError("program_invalid", f"The client does not know the step {type(self).__name__}.")


class Normalise(Before, frozen=True, tag="normalise"):
    """Divide every sample by its Euclidean length; a sample of zeros stays."""

    def apply(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = samples.reshape(len(samples), -1)
        length = np.sqrt(np.einsum("ij,ij->i", flat, flat))[:, None]
        return (flat / np.where(length == 0, 1.0, length)).reshape(samples.shape)


class NormaliseRows(Before, frozen=True, tag="normalise_rows"):
    """Divide every row (the last axis) by its Euclidean length; a row of zeros stays."""

    def apply(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        length = np.sqrt(np.einsum("...j,...j->...", samples, samples))[..., None]
        return np.asarray(samples / np.where(length == 0, 1.0, length), dtype=np.float64)


class AppendSquaredLength(Before, frozen=True, tag="append_squared_length"):
    """One more feature: the squared Euclidean length."""

    def apply(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = samples.reshape(len(samples), -1)
        return np.concatenate([flat, np.einsum("ij,ij->i", flat, flat)[:, None]], axis=1)


class ToUnit(Before, frozen=True, tag="to_unit"):
    """(x − middle)·2^exponent, feature by feature: calibrated values come to lie in [−1, 1], whatever their units, and
    one scale fits them all. Says nothing that the calibrated ranges do not say."""

    middle: tuple[float, ...]
    exponents: tuple[int, ...]

    def apply(self, samples: NDArray[np.float64]) -> NDArray[np.float64]:
        """On `[batch, features]`. The factor is a power of two, so only the subtraction rounds."""
        if samples.shape[-1:] != (len(self.middle),) or len(self.middle) != len(self.exponents):
            raise LatticeError("input_invalid", f"A sample has {len(self.middle)} features, not {samples.shape[-1]}.")
        return np.asarray(np.ldexp(samples - np.array(self.middle), np.array(self.exponents)), dtype=np.float64)


class After(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="step"):
    """A step on decrypted results `[batch, results]`."""


class Sigmoid(After, frozen=True, tag="sigmoid"):
    """1/(1 + e^−x)."""


class Softmax(After, frozen=True, tag="softmax"):
    """Over the results of a sample."""


class LogSoftmax(After, frozen=True, tag="log_softmax"):
    """The logarithm of `Softmax`."""


class ArgMax(After, frozen=True, tag="argmax"):
    """The label of the largest result."""

    labels: tuple[str, ...] = ()


class Threshold(After, frozen=True, tag="threshold"):
    """labels[1] where the one result is above the value, else labels[0]."""

    value: float
    labels: tuple[str, ...] = ()


class Largest(After, frozen=True, tag="largest"):
    """Indices and values of the `count` largest results (`smallest` for distances)."""

    count: int
    smallest: bool = False


class Vote(After, frozen=True, tag="vote"):
    """One result for each pair of classes (0, 1), (0, 2), …, above 0 for the first of the two: who wins most pairs."""

    labels: tuple[str, ...]


class Neighbours(After, frozen=True, tag="neighbours"):
    """The class that most of the `count` largest results belong to; the first of equal ones."""

    count: int
    members: tuple[int, ...]
    """For each result the number of its class."""
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Packed:
    """One ciphertext: for each slot (or coefficient) the entry of flattened `[batch, features or results]`, or < 0."""

    entries: NDArray[np.int32]
    level: int
    scale: str
    """As `hal.program.scale_text` writes it."""
    encoding: Encoding = Encoding.SLOTS


@dataclass(frozen=True, eq=False)
class ClientPart:
    """Everything that a client needs beside the parameters and its keys."""

    feature_shape: tuple[int, ...]
    """Of one sample, before `before`."""
    batch: int
    """Samples in one query; fewer are padded with zeros, more take several queries."""
    before: tuple[Before, ...]
    inputs: tuple[Packed, ...]
    outputs: tuple[Packed, ...]
    after: tuple[After, ...]
    results: int
    """Results per sample."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """`[features]`: the calibrated range; whoever encrypts beyond it is warned, or refused if they ask for that."""
