"""Compiles the examples' MNIST models into the bundles that the executables map: one for single images, one for many.

```sh
python -m benchmarks.he_suite.prepare FOLDER --model square
```
"""

from __future__ import annotations

import argparse
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import Any

from examples.models import mnist_mlp, mnist_relu_mlp
from examples.models.data import mnist
from examples.models.example import Example

from benchmarks.he_suite import bundle


class Model(StrEnum):
    """Which network: the same layers, other activations."""

    SQUARE = "square"
    RELU = "relu"


class Packing(StrEnum):
    """What a query holds: sizes 0 and 1 of the suite send single images, 2 and 3 a batch of 1000."""

    SINGLE = "single"
    BATCH = "batch"


FOLDERS = {Model.SQUARE: mnist_mlp, Model.RELU: mnist_relu_mlp}
OPTIONS: dict[Packing, dict[str, Any]] = {Packing.SINGLE: {}, Packing.BATCH: {"batch": 1000}}


def example(model: Model) -> Example:
    """The trained model and its data."""
    package = FOLDERS[model].__file__
    assert package is not None
    return Example(Path(package).parent, mnist.load)


def prepare(folder: Path, model: Model, packings: tuple[Packing, ...] = tuple(Packing)) -> dict[str, Any]:
    """Write `folder/<packing>/{client,server}.bundle`; facts to print beside a time, by packing."""
    facts: dict[str, Any] = {}
    for packing in packings:
        start = perf_counter()
        compiled = example(model).compile(**OPTIONS[packing])
        bundle.write(compiled, folder / packing)
        facts[packing] = {
            "model": model.value,
            "log_n": compiled.params.log_n,
            "log_qp": round(compiled.params.log_qp, 1),
            "security_bits": 128,
            "keys": len(compiled.keys),
            "encoded_weight_bytes": sum(path.stat().st_size for path in (folder / packing).glob("server.bundle")),
            "compile_s": round(perf_counter() - start, 1),
        }
    return facts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Model, choices=tuple(Model), default=Model.SQUARE)
    parser.add_argument("--packing", type=Packing, choices=tuple(Packing), action="append")
    given = parser.parse_args()
    for packing, fact in prepare(given.folder, given.model, tuple(given.packing or Packing)).items():
        print(packing, fact)


if __name__ == "__main__":
    main()
