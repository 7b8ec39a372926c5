"""The digits and the model of the demo's second act, committed with the examples, and how a digit is drawn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Real = NDArray[np.float32]

FOLDER = Path(__file__).parents[3] / "examples" / "models" / "mnist_mlp"
INK = 0.35
"""From this grey on a pixel is drawn."""
GAP = "   "
_HALVES = " ▄▀█"
"""By upper half × 2 + lower half."""


class Digits(NamedTuple):
    """Images `[count, 1, 28, 28]` from 0 to 1, and the digits that they show."""

    x: Real
    y: NDArray[np.uint8]


def why_not() -> str | None:
    """What the act lacks here, in words; None where it can be played."""
    for package in ("numpy", "onnx"):
        if find_spec(package) is None:
            return f"it needs the package {package}: install the extras `encrypted` and `convert`."
    if not (FOLDER / "model.onnx").exists():
        return (
            "it plays with examples/models/mnist_mlp, which only a clone of the repository has: run `make demo` there."
        )
    return None


def read(name: str) -> Digits:
    """`calibration` or `digits`."""
    import numpy as np

    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
        return Digits(arrays["x"], arrays["y"])


def picture(image: Real, caption: str) -> list[str]:
    """What there is of ink in half blocks, at most ten lines of twenty columns for MNIST, and a caption below."""
    import numpy as np

    ink = image.reshape(28, 28) > INK
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ink = np.pad(ink, ((0, len(ink) % 2), (0, max(0, len(caption) - ink.shape[1]))))
    pairs = zip(ink[::2], ink[1::2], strict=True)
    lines = ["".join(_HALVES[2 * up + low] for up, low in zip(*pair, strict=True)) for pair in pairs]
    return [*lines, caption.ljust(ink.shape[1])]


def side_by_side(pictures: list[list[str]], width: int) -> list[str]:
    """Lines of so many columns with as many pictures beside each other as fit, aligned at their captions."""
    lines: list[str] = []
    row: list[list[str]] = []
    for each in pictures:
        if row and sum(len(one[0]) + len(GAP) for one in row) + len(each[0]) > width:
            lines += _joined(row)
            row = []
        row.append(each)
    return lines + _joined(row)


def _joined(row: list[list[str]]) -> list[str]:
    height = max(len(each) for each in row)
    padded = [[" " * len(each[0])] * (height - len(each)) + each for each in row]
    return [GAP.join(parts).rstrip() for parts in zip(*padded, strict=True)]
