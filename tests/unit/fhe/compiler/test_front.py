"""Calibration sees what occurs, and fitted polynomials follow their functions where values occur."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import operations as ops
from lattice.fhe.compiler.activations import Budget, levels
from lattice.fhe.compiler.calibrate import LEVELS, calibrate, observe
from lattice.fhe.compiler.chebyshev import fit, interpolate
from lattice.fhe.compiler.client_steps import finish, prepare
from lattice.fhe.compiler.front import front
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.importers import Imported

RANDOM = np.random.default_rng(7)
PACKABLE = (
    ops.Dense,
    ops.Matrix,
    ops.Convolution,
    ops.AveragePool,
    ops.Affine,
    ops.Permute,
    ops.Reshape,
    ops.Sum,
    ops.Difference,
    ops.Product,
    ops.Series,
    ops.Square,
)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


def network(*functions: ops.Activation | ops.Power | ops.Square) -> Imported:
    """Dense layers of eight with these functions between."""
    nodes, last = [], "x"
    for place, function in enumerate(functions):
        nodes += [Node(f"d{place}", ops.Dense(normal(8, 8) / 2, normal(8)), (last,))]
        nodes += [Node(f"f{place}", function, (f"d{place}",))]
        last = f"f{place}"
    nodes.append(Node("end", ops.Dense(normal(3, 8), normal(3)), (last,)))
    return Imported(Graph("x", (8,), tuple(nodes), "end"), feature_shape=(8,))


def test_calibration_sees_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(ops.Activation("relu")), normal(1000, 8)
    monkeypatch.setattr("lattice.fhe.compiler.calibrate.MEMORY", 1 << 16)  # several batches
    seen = calibrate(model, x)
    for name, value in model.graph.trace(x).items():
        assert (seen.observed[name].low, seen.observed[name].high) == (value.min(), value.max())
        assert seen.observed[name].rms == pytest.approx(np.sqrt((value**2).mean()))
        np.testing.assert_allclose(seen.observed[name].quantiles[2:-2], np.quantile(value, LEVELS[2:-2]), atol=0.3)
    np.testing.assert_array_equal(seen.low, x.min(axis=0))
    assert seen.observed["d0"].kept.size <= 1 << 15


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (np.full((4, 8), np.nan), "Sample 0 holds NaN"),
        (np.where(np.arange(32).reshape(4, 8) == 17, np.inf, 0.0), "Sample 2 holds NaN"),
        (np.zeros((4, 7)), "7 features, and the model takes 8"),
        (np.zeros(8), "shape"),
        (np.zeros((0, 8)), "shape"),
        ([["a", "b"]], "numbers"),
    ],
)
def test_bad_samples_are_refused(samples: object, why: str) -> None:
    with pytest.raises(LatticeError, match=why) as caught:
        calibrate(network(ops.Square()), samples)  # type: ignore[arg-type]
    assert caught.value.code == "calibration_invalid"


def test_values_outside_what_a_function_takes_are_refused_by_name() -> None:
    with pytest.raises(LatticeError, match="f0"):
        front(network(ops.Activation("log")), normal(50, 8))
    with pytest.raises(LatticeError, match="changes its sign"):
        front(network(ops.Activation("reciprocal")), normal(50, 8))


@pytest.mark.parametrize("function", ["relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "softplus", "silu", "exp"])
def test_a_fit_converges(function: str) -> None:
    kept = normal(5000) * 2
    forward = ops.Activation(function).forward
    errors = [fit(forward, degree, (-8.0, 8.0), kept) for degree in (3, 7, 15, 31, 63)]
    assert all(b.rms_error < a.rms_error or b.rms_error < 1e-9 for a, b in pairwise(errors))
    assert errors[-1].rms_error < 0.02
    assert all(each.rms_error <= each.max_error for each in errors)


def test_values_that_occur_often_are_followed_more_closely() -> None:
    forward = ops.Activation("relu").forward
    narrow, wide = normal(5000) / 10, RANDOM.uniform(-8, 8, 5000)
    assert fit(forward, 7, (-8.0, 8.0), narrow).rms_error < fit(forward, 7, (-8.0, 8.0), wide).rms_error / 1.5
    assert fit(forward, 7, (-8.0, 8.0), narrow).max_error < 3


def test_polynomials_are_exact() -> None:
    series = interpolate(lambda x: x**5 - 3 * x, 5, (-3.0, 7.0))
    x = np.linspace(-20, 20, 99)
    np.testing.assert_allclose(series.forward(x), x**5 - 3 * x, rtol=1e-9, atol=1e-6)
    done = front(network(ops.Power(3), ops.Square()), normal(100, 8))
    assert done.approximation.output_error < 1e-9
    assert [type(node.operation).__name__ for node in done.graph.nodes] == [
        "Dense",
        "Series",
        "Dense",
        "Square",
        "Dense",
    ]


def test_fitted_networks_follow_the_model() -> None:
    model = network(ops.Activation("gelu"), ops.Activation("tanh"), ops.Activation("relu"))
    x = normal(500, 8)
    loose, tight = (front(model, x, budget=Budget(output_error=error)) for error in (0.1, 0.005))
    assert tight.approximation.output_error <= 0.005 < loose.approximation.output_error <= 0.1
    assert sum(note.levels for note in loose.approximation.fitted) < sum(n.levels for n in tight.approximation.fitted)
    fresh = normal(500, 8)
    difference = tight.graph.run(fresh) - model.graph.run(fresh)
    assert np.sqrt((difference**2).mean()) < 0.02 * model.graph.run(fresh).std()


def test_intervals_are_mapped_in_the_layer_before() -> None:
    done = front(network(ops.Activation("sigmoid"), ops.Activation("sigmoid")), normal(100, 8))
    kinds = [type(node.operation).__name__ for node in done.graph.nodes]
    assert kinds == ["Dense", "Series", "Dense", "Series", "Dense"]
    for node in done.graph.nodes:
        if isinstance(node.operation, ops.Series):
            assert node.operation.interval == (-1.0, 1.0)
            seen = observe(done.graph, normal(100, 8))[node.inputs[0]]
            assert -1 < seen.low < seen.high < 1


def test_a_series_of_degree_two_is_a_square_between_layers() -> None:
    done = front(network(ops.Activation("gelu")), normal(100, 8) / 9, budget=Budget(output_error=0.2))
    assert [type(node.operation).__name__ for node in done.graph.nodes] == ["Dense", "Square", "Dense"]
    assert done.approximation.fitted[0].degree == 2


def test_deep_networks_are_held_together_by_higher_degrees() -> None:
    """With low degrees the errors of twelve layers explode; that is no reason to refuse the model."""
    done = front(network(*[ops.Activation("softplus")] * 12), normal(200, 8))
    assert done.approximation.output_error <= 0.05
    assert np.isfinite(done.graph.run(normal(200, 8))).all()


def test_a_bounded_budget_is_kept() -> None:
    model, x = network(ops.Activation("relu"), ops.Activation("relu")), normal(400, 8)
    done = front(model, x, budget=Budget(0.05))
    exact = model.graph.run(x)
    error = np.sqrt(((done.graph.run(x) - exact) ** 2).mean()) / exact.std()
    assert error < 0.06  # judged on all samples, fitted on some
    assert max(note.degree for note in done.approximation.fitted) <= 31


def test_what_cannot_be_fitted_well_is_said() -> None:
    done = front(network(*[ops.Activation("relu")] * 3), normal(100, 8), budget=Budget(0.001, highest=3))
    assert any("of their spread" in warning for warning in done.warnings)
    assert any("calibration samples" in warning for warning in front(network(ops.Square()), normal(5, 8)).warnings)


def test_levels_of_a_degree() -> None:
    assert [levels(degree) for degree in (1, 2, 3, 4, 7, 8, 15, 31)] == [1, 1, 2, 3, 3, 4, 4, 5]


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), load_breast_cancer),
        (make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=80, random_state=1)), load_breast_cancer),
        (MLPClassifier((24,), activation="tanh", max_iter=40, random_state=1), load_digits),
        (SVC(), load_iris),
        (make_pipeline(StandardScaler(), SVC(kernel="poly", coef0=1)), load_iris),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_real_models_keep_their_predictions(model: object, data: object) -> None:
    x, y = data(return_X_y=True)  # type: ignore[operator]
    model.fit(x, y)  # type: ignore[attr-defined]
    done = front(model, x[::2])
    assert all(isinstance(node.operation, PACKABLE) for node in done.graph.nodes)
    labels = finish(done.model.after, done.graph.run(prepare(done.model.before, x))).labels
    agreement = np.mean(labels == model.predict(x).astype(str))  # type: ignore[attr-defined]
    assert agreement >= 0.99
    assert done.data["activations"] == [note.data for note in done.approximation.fitted]
