"""Linear models in coefficients: right results without an evaluation key, and replies that hold nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.seeded import ciphertext_half
from lattice.fhe.compiler.client_part import Sigmoid
from lattice.fhe.compiler.packing.coefficients import compile_linear
from lattice.fhe.hal import backend, interpreter
from lattice.fhe.run import client_keys, decrypt, encrypt, evaluate, prepare
from lattice.fhe.server_side import tensor_of
from tests.unit.fhe.compiler.packing.models import linear, random_linear, raw_coefficients, request

SHAPES = [(1, 1), (30, 1), (30, 3), (500, 10), (2048, 1), (2048, 3), (5000, 2), (3, 700)]


@pytest.mark.parametrize(("features", "outputs"), SHAPES)
def test_results_are_those_of_the_clear(features: int, outputs: int) -> None:
    graph, low, high = random_linear(features, outputs)
    model = compile_linear(graph, low=low, high=high)
    keys, prepared = client_keys(model), prepare(model)
    samples = np.random.default_rng(1).uniform(low, high, (model.client.batch, features))
    sent = encrypt(model.client, model.params, keys.secret, samples)
    results = evaluate(prepared, keys.evaluation, keys.public, sent, request())
    answer = decrypt(model.client, model.params, keys.secret, results)
    assert np.abs(answer.values - graph.run(samples)).max() < 6 * model.report["totals"]["error"]
    assert model.keys == ()


def test_one_row_costs_what_a_batch_costs_and_its_neighbours_are_padding() -> None:
    graph, low, high = random_linear(30, 1)
    model = compile_linear(graph, low=low, high=high, after=(Sigmoid(),))
    assert model.client.batch == 2048 // 30
    keys, prepared = client_keys(model), prepare(model)
    sample = (low + high)[None] / 2
    (sent,) = encrypt(model.client, model.params, keys.secret, sample)
    (reply,) = evaluate(prepared, None, keys.public, [sent], request())
    assert sent.c0.shape == (1, 2048)
    answer = decrypt(model.client, model.params, keys.secret, [reply], 1)
    assert np.abs(answer.values - 1 / (1 + np.exp(-graph.run(sample)))).max() < 1e-5


def test_nothing_but_results_is_left_of_a_reply() -> None:
    """The other coefficients of the product mix weights and features; of c0 they are zero, so they decrypt to noise."""
    graph, low, high = random_linear(30, 2)
    model = compile_linear(graph, low=low, high=high)
    keys, prepared = client_keys(model), prepare(model)
    sent = encrypt(model.client, model.params, keys.secret, (low + high)[None] / 2)
    (reply,) = evaluate(prepared, None, keys.public, sent, request())
    unused = model.client.outputs[0].entries < 0
    q = model.params.base[0]
    c0 = backend().intt(reply.components[0], (q,), model.params.n)[0]
    assert not c0[unused].any()
    assert c0[~unused].all()
    noise = raw_coefficients(keys.secret, reply)[0][unused] / q
    assert np.histogram(noise, 8, (0, 1))[0].min() > len(noise) / 8 * 0.6  # uniform


def test_c1_says_nothing_about_the_weights() -> None:
    """Unblinded it is c1·W, and the client, who knows c1, divides."""
    graph, low, high = random_linear(30, 1)
    model = compile_linear(graph, low=low, high=high)
    keys, prepared = client_keys(model), prepare(model)
    (sent,) = encrypt(model.client, model.params, keys.secret, (low + high)[None] / 2)
    c1, moduli = ciphertext_half(model.params, sent.seed, 0).expand(), model.params.base
    weights = tensor_of(prepared.weights[0])
    (reply,) = evaluate(prepared, None, keys.public, [sent], request())
    rest = backend().sub(reply.components[1], backend().mul(c1, weights, moduli), moduli)
    difference = backend().intt(rest, moduli, model.params.n)[0] / moduli[0]
    assert np.histogram(difference, 8, (0, 1))[0].min() > len(difference) / 8 * 0.6
    again, other = (evaluate(prepared, None, keys.public, [sent], request(name))[0] for name in (b"request", b"other"))
    assert (again.components == reply.components).all()
    assert (other.components != reply.components).mean() > 0.5


@pytest.mark.parametrize(("features", "outputs"), [(30, 1), (30, 100), (5000, 1)])
def test_the_short_way_and_every_backend_give_equal_bits(features: int, outputs: int) -> None:
    graph, low, high = random_linear(features, outputs)
    model = compile_linear(graph, low=low, high=high)
    keys, prepared = client_keys(model), prepare(model)
    sent = encrypt(model.client, model.params, keys.secret, (low + high)[None] / 2)
    full = [x.expand(model.params) for x in sent]
    reference = prepare(model, backend("reference"))
    assert reference.linear is None
    assert prepared.linear is not None
    short = prepared.linear.run(sent)
    long = interpreter.run(prepared.backend, model.program, full, None, prepared.weights)
    assert all((x.components == y.components).all() for x, y in zip(short, long, strict=True))
    for way in (sent, full):
        wanted = evaluate(reference, None, keys.public, way, request())
        found = evaluate(prepared, None, keys.public, way, request())
        assert all((x.components == y.components).all() for x, y in zip(found, wanted, strict=True))


def test_no_two_computations_share_a_blinding() -> None:
    """Else the difference of two replies would be c1 times the difference of the weights, unblinded."""
    graph, low, high = random_linear(30, 1)
    other, _, _ = random_linear(30, 1, seed=1)
    models = [compile_linear(g, low=low, high=high) for g in (graph, other)]
    models[1] = replace(models[0], weights=models[1].weights)  # the same program, deployed anew
    keys = client_keys(models[0])
    sent = encrypt(models[0].client, models[0].params, keys.secret, (low + high)[None] / 2)
    q = models[0].params.base
    (first,), (second,) = (evaluate(prepare(m), None, keys.public, sent, request()) for m in models)
    c1 = ciphertext_half(models[0].params, sent[0].seed, 0).expand()
    weights = [tensor_of(prepare(m).weights[0]) for m in models]
    unblinded = backend().mul(c1, backend().sub(weights[0], weights[1], q), q)
    assert (backend().sub(first.components[1], second.components[1], q) != unblinded).mean() > 0.9


def test_what_does_not_fit_is_refused() -> None:
    wide = linear(np.ones((1, 40 * 2048)), np.zeros(1))
    tall = linear(np.ones((70, 2048)), np.zeros(70))
    for graph in (wide, tall):
        with pytest.raises(LatticeError, match="ciphertexts") as caught:
            compile_linear(graph, low=-np.ones(graph.input_shape), high=np.ones(graph.input_shape))
        assert caught.value.code == "model_unsupported"
    small = linear(np.ones((1, 2)), np.zeros(1))
    with pytest.raises(LatticeError, match="ranges"):
        compile_linear(small, low=np.array([0.0, np.nan]), high=np.ones(2))
    with pytest.raises(LatticeError, match="precision"):
        compile_linear(linear(np.full((1, 2), 1e14), np.zeros(1)), low=-np.ones(2), high=np.ones(2))


def test_a_query_of_another_kind_is_refused() -> None:
    graph, low, high = random_linear(30, 1)
    model = compile_linear(graph, low=low, high=high)
    keys, prepared = client_keys(model), prepare(model)
    (sent,) = encrypt(model.client, model.params, keys.secret, (low + high)[None] / 2)
    with pytest.raises(LatticeError, match="inputs"):
        evaluate(prepared, None, keys.public, [sent, sent], request())
    with pytest.raises(LatticeError, match="scale"):
        evaluate(prepared, None, keys.public, [type(sent)(**{**vars(sent), "scale": sent.scale * 2})], request())
    with pytest.raises(LatticeError, match="shape"):
        evaluate(prepared, None, keys.public, [type(sent)(**{**vars(sent), "c0": sent.c0[:, :64]})], request())
