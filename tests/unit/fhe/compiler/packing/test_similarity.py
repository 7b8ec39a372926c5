"""Similarity search: every score right, nothing in slots without a row, keys within the budget."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.compile import compile
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.packing.similarity import (
    compile_encrypted_similarity,
    compile_scores,
    compile_similarity,
    is_search,
    key_bytes,
    search_parameters,
)
from lattice.fhe.hal import interpreter
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.run import Session, client_keys, decrypt, encrypt, evaluate, prepare
from tests.unit.fhe.compiler.packing.models import random_linear, request

RNG = np.random.default_rng(5)


def scores(rows: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    if metric == "euclidean":
        return ((rows - query) ** 2).sum(axis=1)
    if metric == "cosine":
        return (rows @ query) / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    return rows @ query


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (100, 7), (2048, 16), (2500, 33)])
def test_scores_are_those_of_the_clear(metric: str, rows: int, width: int) -> None:
    vectors = RNG.normal(size=(rows, width))
    query = vectors[rows // 2] * 0.9
    model = compile_similarity(vectors, metric=metric, best=None)
    wanted = scores(vectors, query, metric)
    found = Session(model).run(query[None]).values[0]
    assert np.abs(found - wanted).max() < 12 * model.report["totals"]["error"]  # its tail is long: see the module


def test_the_client_picks_the_best() -> None:
    vectors = RNG.normal(size=(300, 24))
    query = vectors[17] + 0.01 * RNG.normal(size=24)
    answer = Session(compile_similarity(vectors, best=3)).run(query[None])
    wanted = np.argsort(-scores(vectors, query, "cosine"))[:3]
    assert answer.labels is not None
    assert list(np.asarray(answer.labels)[0]) == list(wanted)
    assert answer.values.shape == (1, 3)


def test_slots_without_a_row_are_zero_and_blinded() -> None:
    vectors = RNG.normal(size=(2100, 8))
    model = compile_similarity(vectors, best=None)
    keys, prepared = client_keys(model), prepare(model)
    sent = encrypt(model.client, model.params, keys.secret, vectors[:1])
    full = [x.expand(model.params) for x in sent]
    bare = interpreter.run(prepared.backend, model.program, full, keys.evaluation, prepared.weights)
    unused = model.client.outputs[1].entries < 0
    assert np.abs(Decryptor(keys.secret).values(bare[1])[unused]).max() < 1e-4
    reply = evaluate(prepared, keys.evaluation, keys.public, sent, request())
    assert np.abs(Decryptor(keys.secret).real_values(reply[1])[unused]).std() > 0.1


def test_encrypted_rows_give_the_same_scores() -> None:
    vectors = RNG.normal(size=(2100, 20)) * 7  # the owner's client brings them to length 1
    search = compile_encrypted_similarity(2100, 20, best=None)
    model = search.compiled
    keys, prepared = client_keys(model), prepare(model)
    database = encrypt(search.database, model.params, keys.secret, vectors[None])
    query = RNG.normal(size=20)
    sent = encrypt(model.client, model.params, keys.secret, query[None])
    reply = evaluate(prepared, keys.evaluation, keys.public, [*sent, *database], request())
    found = decrypt(model.client, model.params, keys.secret, reply).values[0]
    assert np.abs(found - scores(vectors, query, "cosine")).max() < 5e-4


def test_a_graph_of_many_outputs_is_a_search() -> None:
    graph, low, high = random_linear(6, 40)
    model = compile_scores(graph, low=low, high=high)
    samples = np.random.default_rng(2).uniform(low, high, (1, 6))
    assert np.abs(Session(model).run(samples).values - graph.run(samples)).max() < 1e-3


def test_a_linear_model_of_many_outputs_is_compiled_as_a_search() -> None:
    few, many = random_linear(30, 3)[0], random_linear(30, 1200)[0]
    assert (is_search(few), is_search(many)) == (False, True)
    samples = np.random.default_rng(3).normal(size=(40, 30))
    model = compile(Imported(many, feature_shape=(30,)), samples)
    assert model.keys
    assert len(model.client.outputs) == 1
    wanted = many.run(samples[:1])
    found = Session(model).run(samples[:1]).values
    assert np.abs(found - wanted).max() < 12 * model.report["totals"]["error"]


def test_keys_stay_within_the_budget() -> None:
    one = key_bytes(search_parameters())
    for budget in (8 * one, 40 * one):
        model = compile_similarity(RNG.normal(size=(10, 128)), max_key_bytes=budget)
        assert len(model.keys) * one <= budget
    with pytest.raises(LatticeError, match="budget"):
        compile_similarity(RNG.normal(size=(10, 128)), max_key_bytes=one)


def test_what_does_not_fit_is_refused() -> None:
    for bad in (np.zeros((0, 3)), np.zeros(3), np.array([[np.inf]]), np.zeros((2, 600))):
        with pytest.raises(LatticeError) as caught:
            compile_similarity(bad)
        assert caught.value.code == "model_unsupported"
    with pytest.raises(LatticeError, match="metrics"):
        compile_similarity(np.ones((2, 2)), metric="manhattan")
    with pytest.raises(LatticeError, match="rows"):
        compile_encrypted_similarity(1 << 30, 4)
