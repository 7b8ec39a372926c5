"""The examples on real data: each committed model runs encrypted and says what it says in the clear.

Data come out of packages of the public registries; where one cannot be reached its tests are skipped, by name.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples.models.data import sentiment
from examples.models.data.packages import DataUnavailableError
from examples.models.example import Example, export, run
from examples.models.mnist_mlp import few

SAMPLES = {
    "breast_cancer": 142,
    "sentiment": 40,
    "similarity": 10,
    "credit": 20,
    "mnist_mlp": 40,
    "mnist_lola": 40,
    "mnist_relu_mlp": 3,
    "mnist_lenet": 3,
}
SLOW = ("credit", "mnist_relu_mlp", "mnist_lenet", "similarity", "sentiment")
LARGEST_ERROR = {"breast_cancer": 1e-4, "sentiment": 1e-4, "similarity": 1e-3, "credit": 0.1, "mnist_relu_mlp": 2.0}
"""Of a result; the activations of the last two are fitted by polynomials."""


def example(name: str) -> Example:
    found: Example = importlib.import_module(f"examples.models.{name}.run").EXAMPLE
    return replace(found, data=lambda: sentiment.few(40)) if name == "sentiment" else found


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SAMPLES]
)
def test_runs_encrypted_as_in_the_clear(name: str) -> None:
    result = _run(name)
    assert result["samples"] == SAMPLES[name]
    assert result["max_error"] < LARGEST_ERROR.get(name, 0.05)
    assert abs(result["accuracy"] - result["plain_accuracy"]) <= 1 / SAMPLES[name], result
    assert result["accuracy"] >= 0.7


def _run(name: str) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pixels that no calibration image has
            return run(example(name), SAMPLES[name], print_rows=False)
    except DataUnavailableError as fault:
        pytest.skip(str(fault))


def test_exports_what_the_command_line_takes(tmp_path: Path) -> None:
    tumours = example("breast_cancer")
    export(tumours, tmp_path)
    with np.load(tmp_path / "test.npz", allow_pickle=False) as held_out:
        assert held_out["x"].shape == (142, 30)
        assert held_out["y"].shape == (142,)
    assert (tmp_path / "model.onnx").read_bytes() == tumours.onnx


def test_the_committed_digits_are_those_of_the_package() -> None:
    try:
        wanted = few.chosen()
    except DataUnavailableError as fault:
        pytest.skip(str(fault))
    for name, arrays in wanted.items():
        with np.load(few.FOLDER / name, allow_pickle=False) as committed:
            assert set(committed.files) == set(arrays)
            assert all(np.array_equal(committed[key], array) for key, array in arrays.items())
