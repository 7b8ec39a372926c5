"""`check` describes a model before it is compiled, and the catalogue that it quotes is what the importers do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import helper
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.catalogue import OPERATORS, Support, find
from lattice.fhe.compiler.check import check
from lattice.fhe.compiler.importers.onnx.operators import CONSTANT_ONLY, HANDLERS
from tests.unit.fhe.compiler.onnx_models import model

RANDOM = np.random.default_rng(8)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def test_a_supported_model_is_described() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", strides=[2, 2]),
        helper.make_node("Mul", ["c", "c"], ["s"], name="square"),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["g"], name="dense"),
        helper.make_node("Relu", ["g"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "e"], ["z"], name="end"),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    shapes = {"w": weights(2, 1, 2, 2), "d": weights(8, 4), "e": weights(4, 3)}
    report = check(model(nodes, ("N", 1, 4, 4), shapes))
    assert report.supported
    assert report.features == (1, 4, 4)
    assert report.results == 3
    assert report.parameters == 2 * 4 + 2 + 8 * 4 + 4 + 4 * 3 + 3
    assert report.depth == 1 + 1 + 1 + 5 + 1
    assert report.after == ("Softmax",)
    assert {each.name: each.count for each in report.operators}["Gemm"] == 2
    assert "conv: convolution 2×1×2×2" in report.layers
    assert any("squares" in each for each in report.suggestions)
    json.dumps(report.to_dict())


def test_an_unsupported_model_is_described() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2], name="pool"),
        helper.make_node("LSTM", ["a"], ["y"], name="lstm"),
    ]
    report = check(model(nodes, ("N", 1, 4, 4)))
    assert not report.supported
    assert [each.operator for each in report.unsupported] == ["MaxPool", "LSTM"]
    assert report.unsupported[0].nodes == ("pool",)
    assert {each.name: each.support for each in report.operators} == {
        "MaxPool": "not supported",
        "LSTM": "not supported",
    }
    assert all(each.split(": ")[1] for each in report.suggestions)
    json.dumps(report.to_dict())


def test_scikit_learn_objects() -> None:
    x, y = load_breast_cancer(return_X_y=True)
    report = check(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y))
    assert (report.depth, report.parameters, report.after) == (1, 31, ("Sigmoid", "Threshold"))
    assert {each.name: each.support for each in report.operators}["StandardScaler"] == "folded"
    assert not check(RandomForestClassifier(2).fit(x, y)).supported


def test_a_file_that_is_no_model_raises() -> None:
    with pytest.raises(LatticeError, match="model_invalid"):
        check(b"no model")


def test_the_importer_and_the_catalogue_agree() -> None:
    """A reader without a row would be missing in the docs; a row without a reader would promise too much."""
    rows = {(row.framework, row.name) for row in OPERATORS if row.support is not Support.NO}
    onnx = {row for row in rows if row[0] != "scikit-learn"}
    assert onnx == set(HANDLERS) | {("onnx", name) for name in CONSTANT_ONLY}


def test_every_refused_operator_names_something_else() -> None:
    assert len(OPERATORS) == len({(row.framework, row.name) for row in OPERATORS})
    for row in OPERATORS:
        if row.support is Support.NO:
            assert len(row.instead) > 8, row
        assert find(row.framework, row.name) is row
