"""One function of a weighted sum by squarings: the polynomials add up to it, and nobody sees more than the result."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.fhe.artefact.files import check_interface
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.compiler import operations as ops
from lattice.fhe.compiler.compile import compile as compile_model
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.importers import Imported
from lattice.fhe.compiler.levels.cost import NOMINAL
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.compiler.packing import squares
from lattice.fhe.compiler.packing.linear_scales import to_unit
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.run import Session

FEATURES = 30


def logistic(numbers: int = 1, function: str = "sigmoid") -> Imported:
    """2·f(w·x + b) − 1, or a sum of several; not the last step, so a client cannot do it."""
    rng = np.random.default_rng(5)
    nodes = (
        Node("sum", ops.Dense(rng.normal(size=(numbers, FEATURES)) / 2, rng.normal(size=numbers)), ("x",)),
        Node("act", ops.Activation(function), ("sum",)),
        Node("end", ops.Dense(np.full((1, numbers), 2.0), np.array([-1.0])), ("act",)),
    )
    return Imported(Graph("x", (FEATURES,), nodes, "end"), feature_shape=(FEATURES,))


def probability() -> Imported:
    """The same where the results are the function's values."""
    model = logistic()
    scaled = Node("end", ops.Affine(np.array([2.0]), np.array([-1.0])), ("act",))
    nodes = (*model.graph.nodes[:2], scaled)
    return Imported(Graph("x", (FEATURES,), nodes, "end"), feature_shape=(FEATURES,))


def samples(count: int = 300) -> np.ndarray:
    return np.random.default_rng(6).normal(size=(count, FEATURES))


def made(model: Imported, **options: object) -> Compiled:
    return compile_model(
        model,
        samples(),
        options=Options(tolerance=0.05, **options),  # type: ignore[arg-type]
        machine=lambda params: NOMINAL.get(params.log_n, NOMINAL[14]),
    )


def test_polynomials_add_up_to_the_function() -> None:
    interval, seen = (-20.0, 12.0), (-17.0, 9.0)
    fitted = squares.summed(ops.Activation("sigmoid").forward, interval, seen, 128, 0.001)
    x = np.linspace(*interval, 301)
    t = (2 * x + 8.0) / 32.0
    mean, _ = fitted.family.values(t, 0.001)
    np.testing.assert_allclose(mean @ fitted.weights + fitted.constant, fitted.series.forward(x), atol=2e-3)
    inside = (x >= seen[0]) & (x <= seen[1])
    assert np.abs(fitted.series.forward(x) - ops.Activation("sigmoid").forward(x))[inside].max() < 0.016


def test_an_encrypted_probability_is_as_good_as_the_report_says() -> None:
    compiled = made(probability())
    assert compiled.report["model"] == "model"
    assert [layer["name"] for layer in compiled.report["layers"]] == ["squares"]
    (fit,) = compiled.report["activations"]
    assert fit["is_result"]
    assert fit["seen_error"] <= 0.02
    x = samples(60)
    error = Session(compiled).run(x).values - probability().graph.run(x)
    assert np.abs(error).max() / 2 <= 0.025
    assert error.std() < 3 * np.hypot(compiled.report["totals"]["error"], 2 * fit["seen_error"])


def test_every_other_coefficient_of_an_answer_is_noise() -> None:
    compiled = made(probability())
    check_interface(compiled.client, None, compiled.program)
    session = Session(compiled)
    (answer,) = session.query(samples(1))
    assert answer.encoding is Encoding.COEFFICIENTS
    values = Decryptor(session.keys.secret).real_values(answer)
    modulus = float(compiled.params.q_moduli(0)[0]) / float(answer.scale)
    assert abs(values[0]) < 1.2
    others = values[1:]
    assert np.abs(others).max() > 0.49 * modulus  # uniform over the modulus
    assert others.std() == pytest.approx(modulus / np.sqrt(12), rel=0.05)


def test_several_numbers_share_the_slots() -> None:
    model, x = logistic(3, "tanh"), samples()
    form = squares.single(model.graph)
    assert form is not None
    unit = to_unit(x.min(axis=0), x.max(axis=0))
    first = form.first.of_unit_features(np.array(unit.middle), np.array(unit.exponents, dtype=np.float64))
    sums = model.graph.trace(x)["sum"]
    seen = float(sums.min()), float(sums.max())
    function, error = ops.Activation("tanh").forward, squares.error_of(first)
    fitted = squares.summed(function, (seen[0] - 1, seen[1] + 1), seen, squares.room(form), error)
    compiled = squares.compile_squares(
        squares.Layout(first, form.last, fitted),
        shape=(FEATURES,),
        low=x.min(axis=0),
        high=x.max(axis=0),
        before=(unit,),
        after=(),
        largest=16.0,
        radix=4,
    )
    wanted = sum(2.0 * fitted.series.forward(sums[:12, k]) for k in range(3)) - 1.0
    assert squares.room(form) == 42
    assert np.abs(Session(compiled).run(x[:12]).values[:, 0] - wanted).max() < 0.25


def test_other_models_are_packed_as_before() -> None:
    twice = logistic()
    nodes = (*twice.graph.nodes, Node("again", ops.Activation("tanh"), ("end",)))
    assert squares.single(Graph("x", (FEATURES,), nodes, "again")) is None
    form = squares.single(logistic(200).graph)
    assert form is not None
    assert squares.room(form) == 0
    assert [layer["name"] for layer in made(probability(), batch=64).report["layers"]] != ["squares"]
    precise = made(probability(), precision=1e-4)
    assert [layer["name"] for layer in precise.report["layers"]] != ["squares"]
