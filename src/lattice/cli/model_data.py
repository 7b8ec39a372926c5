"""Samples and labels from files: `.npz`, `.npy`, `.csv`. Nothing is unpickled, so a data file can run no code."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lattice.core.errors import LatticeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES = ("x", "X", "samples", "data", "features", "input", "inputs")
LABELS = ("y", "labels", "label", "target", "targets")


class Data(NamedTuple):
    """Samples `[count, …]`, and labels `[count]` where there are any."""

    samples: NDArray[Any]
    labels: NDArray[Any] | None = None

    def first(self, count: int | None) -> Data:
        """At most so many."""
        return Data(self.samples[:count], None if self.labels is None else self.labels[:count])


def read_data(path: str, labels: str | None, code: str = "input_invalid") -> Data:
    """Samples of a file. `labels` names an array or column in it, or another file; the usual names are tried too."""
    apart = labels is not None and Path(labels).suffix in _READERS
    found = _reader(path, code)(Path(path), None if apart else labels, code)
    if apart and labels is not None:
        other = _reader(labels, code)(Path(labels), None, code)
        found = Data(found.samples, other.samples.reshape(-1) if other.labels is None else other.labels)
    if found.labels is not None and len(found.labels) != len(found.samples):
        raise LatticeError(code, f"There are {len(found.labels)} labels for {len(found.samples)} samples.")
    return found


def _reader(path: str, code: str) -> Callable[[Path, str | None, str], Data]:
    suffix = Path(path).suffix
    if suffix not in _READERS:
        raise LatticeError(code, f"{path} is not one of {', '.join(_READERS)}.")
    return _READERS[suffix]


def _npz(path: Path, labels: str | None, code: str) -> Data:
    arrays = _load(path, code)
    names = list(arrays.files)
    samples = next((name for name in SAMPLES if name in names), names[0] if len(names) == 1 else None)
    if samples is None:
        raise LatticeError(code, f"{path} has the arrays {', '.join(names)}; call the samples x.")
    wanted = labels or next((name for name in LABELS if name in names), None)
    if wanted is not None and wanted not in names:
        raise LatticeError(code, f"{path} has no array {wanted}, only {', '.join(names)}.")
    try:
        return Data(arrays[samples], None if wanted is None else arrays[wanted].reshape(-1))
    except (ValueError, OSError, EOFError) as error:
        raise LatticeError(code, f"{path} cannot be read: {error}") from None


def _npy(path: Path, labels: str | None, code: str) -> Data:
    if labels is not None:
        raise LatticeError(code, f"{path} holds samples alone; name a file for --labels.")
    return Data(_load(path, code))


def _load(path: Path, code: str) -> Any:
    import zipfile

    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise LatticeError(code, f"{path} cannot be read: {error}") from None


def _csv(path: Path, labels: str | None, code: str) -> Data:
    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise LatticeError(code, f"{path} cannot be read: {error}") from None
    header = None if not rows or all(_is_number(cell) for cell in rows[0]) else rows.pop(0)
    wanted = labels or next((name for name in LABELS if header and name in header), None)
    if wanted is not None and (header is None or wanted not in header):
        raise LatticeError(code, f"{path} has no column {wanted}.")
    at = None if wanted is None or header is None else header.index(wanted)
    truth = None if at is None else np.array([row.pop(at) for row in rows if len(row) > at])
    if not rows or len({len(row) for row in rows}) != 1 or not rows[0]:
        raise LatticeError(code, f"{path} has no rows, or rows of different lengths.")
    bad = next(((line, cell) for line, row in enumerate(rows, 1) for cell in row if not _is_number(cell)), None)
    if bad:
        raise LatticeError(code, f"{path}, row {bad[0]}: {bad[1][:40]!r} is not a number.")
    if truth is not None and all(_is_number(cell) for cell in truth):
        numbers = truth.astype(np.float64)
        truth = numbers.astype(np.int64) if (numbers == numbers.round()).all() else numbers
    return Data(np.array(rows, dtype=np.float64), truth)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS = {".npz": _npz, ".npy": _npy, ".csv": _csv}
