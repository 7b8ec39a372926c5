"""What is known about a compiled model before anybody deploys it, as plain data: `Compiled.report` holds its JSON form.

Every field has a default, so a stage of the compiler fills in what it knows. Times are milliseconds on one core of the
machine that compiled, bytes are those on the wire, errors are absolute, in the units of the value that they are about.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lattice.core.errors import LatticeError

VERSION = 1


class ReportPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Immutable, and no field that this version does not know."""


class ParametersReport(ReportPart, frozen=True):
    """The ring and the modulus chain; sizes of primes in bits, a level may have several."""

    id: str = ""
    log_n: int = 0
    base_bits: tuple[int, ...] = ()
    level_bits: tuple[tuple[int, ...], ...] = ()
    special_bits: tuple[int, ...] = ()
    scale_bits: float = 0.0
    log_q: float = 0.0
    log_qp: float = 0.0
    log_qp_limit: float = 0.0
    """The largest log2(QP) that this ring allows at the security level."""
    security: str = ""
    """As `ckks.security.Security`."""
    security_bits: int = 0


class LayerReport(ReportPart, frozen=True):
    """One box of the picture: a node of the graph after the passes, and what became of it."""

    name: str
    operation: str
    """In words: "dense 784 → 128", "convolution 5×5, stride 2", "square", "series of degree 7"."""
    inputs: tuple[str, ...] = ()
    """Names of the layers that it reads; empty for those that read the model's input."""
    shape: tuple[int, ...] = ()
    """Of the output of one sample."""
    level_in: int = 0
    level_out: int = 0
    rotations: int = 0
    """Key switches for automorphisms, folds included."""
    diagonals: int = 0
    """Plaintext multiplications by weights."""
    products: int = 0
    """Ciphertext by ciphertext."""
    ciphertexts: int = 0
    """That hold the output."""
    time_ms: float = 0.0
    """Predicted."""
    measured_ms: float | None = None
    error: float = 0.0
    """Predicted standard deviation of the output of this layer against the graph in the clear."""
    measured_error: float | None = None
    """Largest seen."""
    largest: float = 0.0
    """The largest absolute value seen in calibration."""


class KeyReport(ReportPart, frozen=True):
    """One evaluation key that a client makes."""

    kind: str
    """`relinearisation`, `rotation` or `conjugation`."""
    level: int
    bytes: int
    steps: int = 0
    """Of a rotation, to the left."""


class BytesReport(ReportPart, frozen=True):
    """What is stored or travels."""

    keys: int = 0
    """All evaluation keys of a client."""
    public_key: int = 0
    input: int = 0
    """All ciphertexts of one query, seeded."""
    output: int = 0
    """All ciphertexts of its answer."""
    weights: int = 0
    """In the artefact."""
    encoded_weights: int = 0
    """In a worker's memory."""
    program: int = 0


class AccuracyReport(ReportPart, frozen=True):
    """On held-out samples: shares of right labels from 0 to 1, or R² where the model gives numbers."""

    samples: int = 0
    metric: str = "accuracy"
    clear: float | None = None
    """The model as it was handed in."""
    simulated: float | None = None
    """After the passes, with activations fitted and noise added."""
    encrypted: float | None = None
    """Really encrypted, evaluated and decrypted, on the first `encrypted_samples`."""
    encrypted_samples: int = 0
    agreement: float | None = None
    """Share of samples for which the encrypted (else simulated) prediction is the clear one."""
    max_error: float | None = None
    """Largest difference of a result, encrypted (else simulated) from clear."""


class RangeReport(ReportPart, frozen=True):
    """What a value reached in calibration."""

    name: str
    low: float
    high: float
    margin: float = 0.0
    """What was added on each side."""


class ActivationReport(ReportPart, frozen=True):
    """A function that was replaced by a polynomial."""

    name: str
    function: str
    degree: int
    interval: tuple[float, float]
    max_error: float
    """Largest distance on the interval, with the margin that was added to the calibrated range."""
    seen: tuple[float, float] = (0.0, 0.0)
    """The calibrated range."""
    seen_error: float = 0.0
    """Largest distance on it, in units of the function: of a sigmoid in probability."""
    is_result: bool = False
    """Whether its values are the model's results."""


class TotalsReport(ReportPart, frozen=True):
    """Over the whole program."""

    levels: int = 0
    rotations: int = 0
    rotation_keys: int = 0
    diagonals: int = 0
    products: int = 0
    instructions: int = 0
    peak_ciphertexts: int = 0
    time_ms: float = 0.0
    """Predicted, one query of `batch` samples."""
    measured_ms: float | None = None
    error: float = 0.0
    """Predicted standard deviation of a result."""


class StageReport(ReportPart, frozen=True):
    """How long the compiler took for one of its stages."""

    name: str
    seconds: float


class Report(ReportPart, frozen=True):
    """The whole."""

    version: int = VERSION
    model: str = "model"
    source: str = ""
    """`onnx`, `sklearn`, `torch`."""
    goal: str = "latency"
    batch: int = 1
    slots: int = 0
    backend: str = ""
    """Whose times these are, such as `native avx512ifma`."""
    parameters: ParametersReport = ParametersReport()
    layers: tuple[LayerReport, ...] = ()
    totals: TotalsReport = TotalsReport()
    keys: tuple[KeyReport, ...] = ()
    bytes: BytesReport = BytesReport()
    accuracy: AccuracyReport | None = None
    ranges: tuple[RangeReport, ...] = ()
    activations: tuple[ActivationReport, ...] = ()
    stages: tuple[StageReport, ...] = ()
    peak_memory_bytes: int = 0
    """Of the process that compiled."""
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, for `Compiled.report`."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


def read_report(data: dict[str, Any]) -> Report:
    """`to_dict`'s form, checked; `artefact_invalid` for anything else."""
    try:
        report = msgspec.convert(data, Report)
    except (msgspec.ValidationError, RecursionError):
        raise LatticeError("artefact_invalid", "The report is malformed.") from None
    if report.version != VERSION:
        raise LatticeError("artefact_invalid", f"Reports of version {VERSION} are read, this one is {report.version}.")
    return report
