"""Models as skl2onnx writes them: operators of `ai.onnx.ml`, against ONNX's own evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import ArgMax, Normalise, Sigmoid, Softmax
from lattice.fhe.compiler.client_steps import finish, prepare
from lattice.fhe.compiler.importers import Imported, load
from tests.unit.fhe.compiler.onnx_models import model

RANDOM = np.random.default_rng(9)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), domain="ai.onnx.ml", **attributes)


def answer(imported: Imported, x: np.ndarray) -> Any:
    return finish(imported.after, imported.graph.run(prepare(imported.before, x)))


def linear(classes: int, transform: str, **labels: Any) -> Any:
    return node(
        "LinearClassifier",
        "x",
        "label scores",
        coefficients=RANDOM.normal(size=classes * 4).tolist(),
        intercepts=RANDOM.normal(size=classes).tolist(),
        post_transform=transform,
        **labels,
    )


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_a_classifier_of_three(transform: str) -> None:
    proto = model([linear(3, transform, classlabels_ints=[7, 8, 9])], ("N", 4), outputs=("label", "scores"), ml=True)
    x = RANDOM.normal(size=(20, 4)).astype(np.float32)
    imported = load(proto)
    done = answer(imported, x)
    label, scores = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_array_equal(done.labels.astype(int), label)
    np.testing.assert_allclose(done.values, scores, atol=1e-5)
    assert isinstance(imported.after[-1], ArgMax)


def test_a_classifier_of_two_is_one_result() -> None:
    """skl2onnx writes a binary model as two mirrored rows."""
    weight, bias = RANDOM.normal(size=4), 0.3
    call = node(
        "LinearClassifier",
        "x",
        "label scores",
        coefficients=[*(-weight), *weight],
        intercepts=[-bias, bias],
        post_transform="LOGISTIC",
        classlabels_strings=["no", "yes"],
    )
    imported = load(model([call], ("N", 4), outputs=("label", "scores"), ml=True))
    x = RANDOM.normal(size=(20, 4))
    done = answer(imported, x)
    probability = 1 / (1 + np.exp(-(x @ weight + bias)))
    np.testing.assert_allclose(done.values[:, 0], probability, atol=1e-6)
    np.testing.assert_array_equal(done.labels, np.where(probability > 0.5, "yes", "no"))
    assert imported.after[0] == Sigmoid()


def test_a_scaled_regressor() -> None:
    nodes = [
        node("Normalizer", "x", "n", norm="L2"),
        node("Scaler", "n", "s", offset=[0.1, 0.2, 0.3, 0.4], scale=[2.0, 3.0, 4.0, 5.0]),
        node("LinearRegressor", "s", "y", coefficients=[1.0, -2.0, 3.0, 0.5], intercepts=[0.25]),
    ]
    proto = model(nodes, ("N", 4), ml=True)
    x = RANDOM.normal(size=(9, 4)).astype(np.float32)
    imported = load(proto)
    assert imported.before == (Normalise(),)
    np.testing.assert_allclose(answer(imported, x).values, ReferenceEvaluator(proto).run(None, {"x": x})[0], atol=1e-5)


def test_labels_picked_after_the_largest() -> None:
    """classes[argmax(softmax(…))], as an MLPClassifier is exported."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"]),
        helper.make_node("ArgMax", ["p"], ["i"], axis=1, keepdims=1),
        node("ArrayFeatureExtractor", "classes i", "l"),
        helper.make_node("Cast", ["l"], ["c"], to=7),
        helper.make_node("Reshape", ["c", "flat"], ["y"]),
    ]
    weights = {"classes": np.array([3, 5, 8], np.int64), "flat": np.array([-1])}
    imported = load(model(nodes, ("N", 3), weights, ml=True))
    assert imported.after == (Softmax(), ArgMax(("3", "5", "8")))


def test_what_is_not_supported_is_said() -> None:
    nodes = [node("Normalizer", "x", "n", norm="L1"), node("TreeEnsembleRegressor", "n", "y")]
    with pytest.raises(LatticeError, match="MLP") as caught:
        load(model(nodes, ("N", 4), ml=True))
    assert [each["operator"] for each in caught.value.details["unsupported"]] == ["Normalizer", "TreeEnsembleRegressor"]
