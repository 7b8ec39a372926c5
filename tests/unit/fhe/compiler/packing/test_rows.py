"""Thousands of rows of a linear model: one feature in a ciphertext, one row in a coefficient."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.packing.rows import compile_rows
from lattice.fhe.hal import backend
from lattice.fhe.run import client_keys, decrypt, encrypt, evaluate, prepare
from tests.unit.fhe.compiler.packing.models import random_linear, request


@pytest.mark.parametrize(("features", "outputs", "rows"), [(30, 1, 4096), (7, 3, 100), (1, 1, 2049)])
def test_results_are_those_of_the_clear_with_equal_bits_everywhere(features: int, outputs: int, rows: int) -> None:
    graph, low, high = random_linear(features, outputs)
    model = compile_rows(graph, rows=rows, low=low, high=high)
    assert model.client.batch >= rows
    assert model.keys == ()
    keys, prepared = client_keys(model), prepare(model)
    samples = np.random.default_rng(1).uniform(low, high, (rows, features))
    sent = encrypt(model.client, model.params, keys.secret, samples)
    results = evaluate(prepared, None, keys.public, sent, request())
    answer = decrypt(model.client, model.params, keys.secret, results, rows)
    assert np.abs(answer.values - graph.run(samples)).max() < 7 * model.report["totals"]["error"]
    wanted = evaluate(prepare(model, backend("reference")), None, keys.public, sent, request())
    assert all((x.components == y.components).all() for x, y in zip(results, wanted, strict=True))


@pytest.mark.parametrize(("features", "outputs", "rows"), [(5000, 1, 10), (2, 300, 10), (2, 1, 20_000), (2, 1, 0)])
def test_what_does_not_fit_is_refused(features: int, outputs: int, rows: int) -> None:
    graph, low, high = random_linear(features, outputs)
    with pytest.raises(LatticeError, match="not for") as caught:
        compile_rows(graph, rows=rows, low=low, high=high)
    assert caught.value.code == "model_unsupported"
