"""What the `run` scripts share: compile the model, run it encrypted on held-out samples, print what came out."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from examples.models.data.dataset import Dataset
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lattice.fhe.compiler.compiled import Compiled
    from lattice.fhe.compiler.importers.imported import Imported

Real = NDArray[np.floating[Any]]

CALIBRATION = 1000
"""Training samples that the compiler may look at."""


@dataclass(frozen=True)
class Example:
    """A trained model and its data."""

    folder: Path
    data: Callable[[], Dataset]
    options: dict[str, Any] = field(default_factory=dict)
    """Of the compiler."""
    threshold: ClassVar[float] = 0.5
    """Of the one result, where a model has but one."""

    @property
    def record(self) -> dict[str, Any]:
        """What training wrote down."""
        found: dict[str, Any] = json.loads((self.folder / "model.json").read_text())
        return found

    @property
    def onnx(self) -> bytes:
        """The model file; LeNet's is unpacked from eight-bit weights."""
        if (self.folder / "model.npz").exists():
            from examples.models.compact import unpack

            return unpack(self.folder / "model.npz")
        return (self.folder / "model.onnx").read_bytes()

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The weights by the names that they had in torch."""
        import onnx
        from onnx import numpy_helper

        graph = onnx.load_model_from_string(self.onnx).graph
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def clear(self, samples: Real, scores: bool = False) -> Real:
        """The model in the clear, by onnx's own evaluator: nothing of ours is in it.

        `scores` are what comes before a sigmoid at the end, where there is one.
        """
        import onnx
        from onnx.reference import ReferenceEvaluator

        model = onnx.load_model_from_string(self.onnx)
        if scores and model.graph.node[-1].op_type == "Sigmoid":
            model.graph.output[0].name = model.graph.node.pop().input[0]
        evaluator = ReferenceEvaluator(model)
        parts = [samples[k : k + 500].astype(np.float32) for k in range(0, len(samples), 500)]
        return np.concatenate([np.asarray(evaluator.run(None, {"input": part})[0]) for part in parts])

    def labels(self, values: Real, threshold: float | None = None) -> NDArray[np.int64]:
        """The label of every sample: the largest score, or whether the one result is above the threshold."""
        threshold = self.threshold if threshold is None else threshold
        return (values[:, 0] > threshold).astype(np.int64) if values.shape[1] == 1 else values.argmax(axis=1)

    def imported(self) -> Imported:
        """The model, with the choice of a label as the client's last step."""
        from lattice.fhe.compiler.client_part import ArgMax, Threshold
        from lattice.fhe.compiler.importers.load import load

        found, labels = load(self.onnx), self.data().labels
        choice = Threshold(self.threshold, labels) if found.graph.output_shape == (1,) else ArgMax(labels)
        return replace(found, after=(*found.after, choice))

    def compile(self, **options: Any) -> Compiled:
        """The encrypted program; `options` come on top of the example's own."""
        from lattice.fhe.compiler.compile import compile
        from lattice.fhe.compiler.levels.options import Options

        data = self.data()
        seen = data.train[:CALIBRATION]
        names = np.array(data.labels)[data.train_labels[:CALIBRATION]]
        return compile(self.imported(), seen, labels=names, options=Options(**self.options, **options))


def main(example: Example) -> None:
    """Command line of every `run` script."""
    parser = argparse.ArgumentParser(description=f"Run {example.folder.name} encrypted on real samples.")
    parser.add_argument("--samples", type=int, default=10, help="how many held-out samples")
    parser.add_argument("--quiet", action="store_true", help="only the last line")
    parser.add_argument("--export", type=Path, help="only write what `lattice models compile` takes into this folder")
    given = parser.parse_args()
    if given.export:
        export(example, given.export)
        return
    print(json.dumps(run(example, given.samples, print_rows=not given.quiet)))


def export(example: Example, folder: Path) -> None:
    """`model.onnx`, and samples with labels: `train.npz` to calibrate with, `test.npz` held out."""
    data = example.data()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(example.onnx)
    np.savez(folder / "train.npz", x=data.train[:CALIBRATION], y=data.train_labels[:CALIBRATION])
    np.savez(folder / "test.npz", x=data.test[:CALIBRATION], y=data.test_labels[:CALIBRATION])


def run(example: Example, count: int, print_rows: bool = True) -> dict[str, Any]:
    """Client and evaluator in one process, on the first `count` held-out samples."""
    from lattice.fhe.run import Session

    data = example.data()
    samples, truth = data.test[:count], data.test_labels[:count]
    started = time.perf_counter()
    session = Session(example.compile())
    ready = time.perf_counter()
    values = session.run(samples).values
    done = time.perf_counter()
    clear = example.clear(samples)
    found, plain = example.labels(values), example.labels(clear)
    if print_rows:
        for k in range(len(samples)):
            said, expected = data.labels[found[k]], data.labels[plain[k]]
            print(f"sample {k}: encrypted {said}, clear {expected}, truth {data.labels[truth[k]]}")
    return {
        "model": example.folder.name,
        "samples": len(samples),
        "accuracy": float((found == truth).mean()),
        "plain_accuracy": float((plain == truth).mean()),
        "max_error": float(np.abs(values - clear).max()),
        "compile_s": round(ready - started, 2),
        "each_ms": round((done - ready) / len(samples) * 1e3, 2),
    }
