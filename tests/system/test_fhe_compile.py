"""From a trained model's file to labels under encryption, and every way in which a model is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.security import max_log_qp
from lattice.fhe.compiler.client_part import ArgMax
from lattice.fhe.compiler.compile import compile as compile_model
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.levels.cost import NOMINAL
from lattice.fhe.compiler.levels.options import Goal, Options
from lattice.fhe.compiler.operations import Activation, Dense, Square
from lattice.fhe.run import Session

WIDTHS = (32, 16, 8, 3)


def mlp(activation: str | None = None, widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> Imported:
    rng = np.random.default_rng(seed)
    nodes, last = [], "x"
    for number, (columns, rows) in enumerate(pairwise(widths)):
        weights = rng.normal(size=(rows, columns)) / np.sqrt(columns)
        nodes.append(Node(f"dense{number}", Dense(weights, rng.normal(size=rows) / 4), (last,)))
        last = nodes[-1].name
        if number < len(widths) - 2:
            nodes.append(Node(f"act{number}", Activation(activation) if activation else Square(), (last,)))
            last = nodes[-1].name
    graph = Graph("x", (widths[0],), tuple(nodes), last, "mlp")
    return Imported(graph, after=(ArgMax(tuple(f"class {k}" for k in range(widths[-1]))),), feature_shape=(widths[0],))


def samples(count: int = 200, features: int = 32) -> np.ndarray:
    return np.random.default_rng(9).uniform(-1, 1, (count, features))


def made(model: Imported, **options: object) -> Compiled:
    return compile_model(
        model, samples(), options=Options(**options), machine=lambda params: NOMINAL.get(params.log_n, NOMINAL[14])
    )


@pytest.mark.parametrize("activation", [None, "tanh", "relu"])
def test_an_encrypted_network_chooses_the_labels_of_the_clear_one(activation: str | None) -> None:
    model = mlp(activation, WIDTHS if activation is None else (32, 8, 3))
    compiled = made(model)
    x = samples()[:6]
    answer = Session(compiled).run(x)
    clear = model.graph.run(x)
    sure = np.diff(np.sort(clear, axis=1)[:, -2:], axis=1)[:, 0] > 0.1
    assert sure.any()
    assert [label for label, use in zip(answer.labels, sure, strict=True) if use] == [
        f"class {k}" for k in clear.argmax(axis=1)[sure]
    ]
    assert compiled.params.log_qp <= max_log_qp(compiled.params.log_n)


def test_the_report_is_plain_json_with_the_figures_that_matter() -> None:
    compiled = made(mlp())
    report = json.loads(json.dumps(compiled.report))
    assert report["accuracy"]["simulated"] >= report["accuracy"]["clear"] - 0.005
    assert report["parameters"]["log_qp"] <= report["parameters"]["log_qp_limit"]
    assert [layer["name"] for layer in report["layers"]] == ["dense0", "act0", "dense1", "act1", "dense2"]
    assert report["layers"][0]["level_in"] == report["totals"]["levels"] == 4
    assert report["totals"]["time_ms"] == pytest.approx(sum(layer["time_ms"] for layer in report["layers"]), rel=1e-2)
    assert report["bytes"]["keys"] > 0
    assert 0 < report["totals"]["error"] < 1e-2


def test_a_real_run_errs_as_the_report_says() -> None:
    model = mlp()
    compiled = made(model)
    x = samples()[:10]
    error = Session(compiled).run(x).values - model.graph.run(x)
    predicted = compiled.report["totals"]["error"]
    assert predicted / 3 < np.sqrt((error**2).mean()) < 3 * predicted


def test_a_linear_model_needs_no_keys() -> None:
    compiled = made(mlp(widths=(32, 3)))
    assert compiled.keys == ()
    x = samples()[:50]
    assert np.abs(Session(compiled).run(x).values - mlp(widths=(32, 3)).graph.run(x)).max() < 1e-4


def test_a_batch_is_packed_for_throughput() -> None:
    model = mlp()
    compiled = made(model, batch=64)
    assert compiled.client.batch >= 64
    x = samples()[:70]
    assert np.abs(Session(compiled).run(x).values - model.graph.run(x)).max() < 1e-2


def test_fewer_keys_where_they_count_more_than_time() -> None:
    quick, thrifty = made(mlp()), made(mlp(), goal=Goal.KEYS)
    assert thrifty.report["bytes"]["keys"] <= quick.report["bytes"]["keys"]
    budget = quick.report["bytes"]["keys"] // 2
    over = made(mlp(), max_key_bytes=budget)
    assert over.report["bytes"]["keys"] < quick.report["bytes"]["keys"]
    fits = over.report["bytes"]["keys"] <= budget
    assert fits or any("keys take" in warning for warning in over.report["warnings"])


def test_an_inaccurate_model_is_refused_unless_that_is_allowed() -> None:
    noisy = Options(scale_bits=20, tolerance=0.0, log_n=13)
    model = mlp(widths=(32, 32, 32, 32))
    with pytest.raises(LatticeError) as caught:
        compile_model(model, samples(2000), options=noisy)
    assert caught.value.code == "model_inaccurate"
    allowed = Options(scale_bits=20, tolerance=0.0, log_n=13, allow_inaccurate=True)
    compiled = compile_model(model, samples(2000), options=allowed)
    assert any("tolerance" in warning for warning in compiled.report["warnings"])


def test_too_deep_a_model_is_refused_with_the_numbers() -> None:
    deep = mlp(widths=(32,) * 7)
    with pytest.raises(LatticeError, match="levels") as caught:
        made(deep, log_n=13)
    assert caught.value.code == "model_too_deep"
    assert caught.value.details["depth"] >= 10


def test_samples_far_outside_the_calibration_count_as_lost() -> None:
    """A polynomial explodes beyond its interval: the accuracy that is shown must not pretend otherwise."""
    model = mlp("relu", (32, 8, 3))
    beyond = samples() * np.where(np.arange(200) < 20, 30.0, 1.0)[:, None]
    options = Options(allow_inaccurate=True)
    compiled = compile_model(model, samples(), held_out=beyond, options=options)
    assert compiled.report["accuracy"]["simulated"] <= 0.905
    assert any("left the calibrated ranges" in warning for warning in compiled.report["warnings"])


@pytest.mark.parametrize("wrong", [np.full((50, 32), np.nan), np.zeros((50, 31)), np.zeros((0, 32)), "text"])
def test_calibration_samples_are_checked(wrong: object) -> None:
    with pytest.raises(LatticeError) as caught:
        compile_model(mlp(), wrong)
    assert caught.value.code == "calibration_invalid"


def test_scores_without_a_choice_are_judged_by_the_largest_when_labels_are_classes() -> None:
    model = replace(mlp(), after=())
    truth = model.graph.run(samples()).argmax(axis=1)
    report = compile_model(model, samples(), labels=truth).report
    assert (report["accuracy"]["metric"], report["accuracy"]["clear"]) == ("accuracy", 1.0)
    assert compile_model(model, samples()).report["accuracy"]["metric"] == "R²"


def test_pixels_share_a_range_and_columns_do_not() -> None:
    """A pixel that calibration saw black only is no reason for a warning, a column beyond its own range is."""
    image = replace(mlp(), feature_shape=(2, 4, 4))
    seen = samples() * np.where(np.arange(32) == 5, 0.0, 1.0)
    flat, pixels = compile_model(mlp(), seen).client, compile_model(image, seen.reshape(-1, 2, 4, 4)).client
    assert flat.high[5] == flat.low[5] == 0.0
    assert pixels.high[5] == pixels.high[:16].max() > 0.9


def test_stages_are_told_as_they_happen() -> None:
    told: list[tuple[str, float]] = []
    compile_model(mlp(), samples(), progress=lambda name, part: told.append((name, part)))
    assert [name for name, part in told if part == 0.0] == [
        "import",
        "simplify",
        "calibrate and fit",
        "pack and assign levels",
        "judge accuracy",
    ]


@pytest.mark.parametrize("field", [{"log_n": 9}, {"scale_bits": 60}, {"tolerance": -1.0}, {"batch": 0}])
def test_options_out_of_range_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(LatticeError):
        Options(**field)


def test_scales_of_the_client_part_are_exact(tmp_path: Path) -> None:
    compiled = made(mlp())
    for packed, declared in zip(compiled.client.inputs, compiled.program.inputs, strict=True):
        assert (packed.level, packed.scale) == (declared.level, declared.scale)
        assert declared.kind.scale == Fraction(compiled.params.scale)


def test_fits_are_as_rough_as_the_tolerance_allows() -> None:
    """Labels that hardly change need no high degrees; numbers do, and then scales are finer too."""
    model = mlp("tanh", (32, 8, 3))
    rough, fine = made(model, tolerance=0.1), made(replace(model, after=()), tolerance=0.001)
    degrees = [made.report["activations"][0]["degree"] for made in (rough, fine)]
    assert degrees[0] <= 7 < degrees[1]
    assert rough.params.log_qp < fine.params.log_qp


def test_a_wished_precision_is_kept_and_only_the_default_is_loosened() -> None:
    """Fits that leave labels alone are rough, and noise may be too; who says how precise gets both as precise."""
    model = mlp("tanh", (32, 8, 3))
    default, wished = made(model, tolerance=0.1), made(model, tolerance=0.1, precision=5e-4)
    spread = model.graph.run(samples()).std()
    assert default.report["totals"]["error"] > 5e-4 * spread
    assert wished.report["totals"]["error"] <= 5e-4 * spread
    x = samples()[:8]
    error = Session(wished).run(x).values - model.graph.run(x)
    assert np.sqrt((error**2).mean()) < 3e-3 * spread
    coarse = made(model, tolerance=0.1, precision=0.05)
    assert coarse.params.log_qp < wished.params.log_qp


def test_the_report_says_how_far_every_activation_is_off() -> None:
    (fit,) = made(mlp("tanh", (32, 8, 3))).report["activations"]
    low, high = fit["seen"]
    assert fit["interval"][0] < low < high < fit["interval"][1]
    assert 0 < fit["seen_error"] <= fit["max_error"]
    assert not fit["is_result"]


def test_labels_may_change_for_one_in_a_thousand() -> None:
    """And for one sample where there are fewer; numbers, and users who say otherwise, have a tolerance of their own."""
    default = Options()
    assert [default.allowed("accuracy", count) for count in (100, 1000, 50_000)] == [0.01, 0.001, 0.001]
    assert default.allowed("R²", 100) == 0.005
    assert Options(tolerance=0.0).allowed("accuracy", 100) == 0.0


def test_a_batch_that_is_not_full_holds_no_zeros_that_explode() -> None:
    """Samples lie far from zero, as ages and incomes do: what fills a batch up must lie where polynomials hold."""
    model, shift = mlp("tanh", (32, 8, 3)), 40.0
    first = model.graph.nodes[0].operation
    assert isinstance(first, Dense)
    moved = replace(first, bias=first.bias - shift * first.weight.sum(axis=1))
    graph = replace(model.graph, nodes=(replace(model.graph.nodes[0], operation=moved), *model.graph.nodes[1:]))
    far = replace(model, graph=graph)
    compiled = compile_model(far, samples() + shift, options=Options(batch=64))
    x = samples()[:3] + shift
    assert np.abs(Session(compiled).run(x).values - graph.run(x)).max() < 0.5
