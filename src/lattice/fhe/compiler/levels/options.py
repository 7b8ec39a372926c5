"""What a user may ask of the compiler; everything has a default that is chosen by measurement of the model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.security import Security


class Goal(StrEnum):
    """What a compilation keeps small."""

    LATENCY = "latency"
    KEYS = "keys"
    THROUGHPUT = "throughput"


PRECISION = 1e-3
LABELS, NUMBERS = 0.001, 0.005
"""Tolerances: a tenth of a percentage point of right labels; an error of numbers, beside their spread."""
SHAREABLE = (
    "results that may be shown to others (shareable) need about 34 bits of precision more than their own, which no "
    "scale of at most 48 bits has; see the limits in the documentation"
)


@dataclass(frozen=True)
class Options:
    """Left out (None): the compiler decides."""

    log_n: int | None = None
    scale_bits: int | None = None
    security: Security = Security.CLASSICAL
    tolerance: float | None = None
    """How much accuracy may be lost, as a part of 1 (`LABELS` unless said); for a regression how large the error may
    be, as a part of the spread of the results (`NUMBERS` unless said)."""
    allow_inaccurate: bool = False
    """Compile even past the tolerance; the report says so."""
    precision: float | None = None
    """The error (one standard deviation) of a result that scale bits and fits of activations are chosen for, as a part
    of the results' spread. Unless said, `PRECISION`, or coarser where accuracy is kept with coarser fits."""
    goal: Goal = Goal.LATENCY
    max_key_bytes: int | None = None
    shareable: bool = False
    """Refused: noise that makes a decryption safe to show takes more precision than a program has."""
    batch: int | None = None
    margin: float = 2.0
    """How much larger than on the calibration data values may be before they wrap around."""

    def __post_init__(self) -> None:
        wrong = SHAREABLE if self.shareable else ""
        if self.log_n is not None and not 10 <= self.log_n <= 16:
            wrong = f"log_n = {self.log_n} is outside 10 … 16"
        elif self.scale_bits is not None and not 16 <= self.scale_bits <= 48:
            wrong = f"scale_bits = {self.scale_bits} is outside 16 … 48"
        elif not (0 <= self.allowed("accuracy") <= 1 and 0 < self.noise <= 1 and self.margin >= 1):
            wrong = "a tolerance, precision or margin is out of range"
        elif self.batch is not None and self.batch < 1:
            wrong = f"a batch of {self.batch}"
        if wrong:
            raise LatticeError("invalid_parameters", f"The options cannot be met: {wrong}.")
        Security(self.security)
        Goal(self.goal)

    def allowed(self, metric: str, samples: int = 0) -> float:
        """The tolerance, for `accuracy` of labels or another metric. Unless said, one of fewer than a thousand samples
        may be lost: fewer cannot tell a smaller share."""
        if self.tolerance is not None:
            return self.tolerance
        return max(LABELS, 1 / samples if samples else 0.0) if metric == "accuracy" else NUMBERS

    @property
    def noise(self) -> float:
        """The precision that scale bits are chosen for."""
        return PRECISION if self.precision is None else self.precision
