"""Predicted error and bytes against real ones: users decide on them before anything runs."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.fhe.ckks.parameters import Parameters
from lattice.fhe.compiler.levels import cost, noise, sizes
from lattice.fhe.compiler.levels.build import Built
from lattice.fhe.compiler.levels.predict import predict
from lattice.fhe.compiler.levels.trace import trace
from lattice.fhe.hal import backend, interpreter
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.run import ClientKeys, Session, client_keys, encrypt, prepare
from lattice.fhe.serialise.ciphertexts import encode_ciphertext
from lattice.fhe.serialise.keys import encode_evaluation_keys, encode_public_key
from tests.support.circuits import built, compiled, inputs_of, network, random_circuit, results_in_clear


def real_values(made: Built, samples: np.ndarray, keys: ClientKeys) -> list[np.ndarray]:
    """Every value of the circuit, really encrypted: `[samples, slots]` each."""
    model = compiled(made, samples.shape[1], 1)
    program = noise.with_outputs(made.program, made.lowered.registers)
    prepared, decryptor = prepare(model), Decryptor(keys.secret)
    rows = []
    for sample in samples:
        sent = [x.expand(model.params) for x in encrypt(model.client, model.params, keys.secret, sample)]
        outs = interpreter.run(backend(), program, sent, keys.evaluation, prepared.weights)
        rows.append([decryptor.real_values(out) for out in outs])
    return [np.stack(values) for values in zip(*rows, strict=True)]


@pytest.mark.parametrize("fold_first", [True, False])
def test_every_layer_errs_as_much_as_predicted(fold_first: bool) -> None:
    """Within a factor of 3 both ways, at every value of the circuit, in all slots."""
    rng = np.random.default_rng(3)
    samples = rng.uniform(-1, 1, (3, 64))
    circuit = network(rng, 4096, (64, 32, 16, 4))
    made = built(circuit, samples, fold_first=fold_first)
    clear = trace(circuit, inputs_of(circuit, samples))
    inputs = inputs_of(circuit, samples)
    noisy = noise.simulate(made.program, made.lowered.weights, inputs, made.lowered.registers).registers
    keys = client_keys(compiled(made, 64, 4))
    for wanted, found, predicted in zip(clear, real_values(made, samples, keys), noisy, strict=True):
        measured, expected = np.std(found - wanted), np.std(predicted - wanted)
        assert expected / 3 < measured < 3 * expected


@pytest.mark.parametrize("seed", range(5))
def test_random_circuits_err_as_much_as_predicted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 4096, 6, depth=2)
    count = len(circuit.outputs) * 4096
    samples = rng.uniform(-1, 1, (2, 2 * 4096))
    made = built(circuit, samples)
    errors = predict(made, inputs_of(circuit, samples))
    answer = Session(compiled(made, 2 * 4096, count)).run(samples)
    measured = np.abs(answer.values - results_in_clear(circuit, samples, count))
    assert errors.deviation / 3 < np.sqrt((measured**2).mean()) < 3 * errors.deviation
    assert measured.max() < errors.bound


def test_bytes_are_predicted_exactly() -> None:
    rng = np.random.default_rng(1)
    made = built(network(rng, 4096, (64, 32, 16, 4)), rng.uniform(-1, 1, (2, 64)))
    model = compiled(made, 64, 4)
    session = Session(model)
    assert isinstance(model.params, Parameters)
    assert sizes.evaluation_keys(model.params, model.keys) == len(encode_evaluation_keys(session.keys.evaluation))
    assert sizes.public_key(model.params) == len(encode_public_key(session.keys.public, model.params))
    sent = encrypt(model.client, model.params, session.keys.secret, np.zeros(64))
    assert sizes.query(model.program) == sum(len(encode_ciphertext(x, model.params)) for x in sent)
    results = session.query(np.zeros(64))
    assert sizes.answer(model.program) == sum(len(encode_ciphertext(x, model.params)) for x in results)
    assert sizes.encoded_weights(model.program) == session.prepared.weight_bytes


def test_time_is_estimated_for_every_layer() -> None:
    rng = np.random.default_rng(1)
    made = built(network(rng, 4096, (64, 32, 16, 4)), rng.uniform(-1, 1, (2, 64)))
    found = cost.estimate(made.program, made.lowered.layers, cost.NOMINAL[13])
    assert set(found.by_layer) == {"dense 1", "square 0", "dense 3", "square 1", "dense 5"}
    assert found.seconds == pytest.approx(sum(found.by_layer.values()))
    # Lower levels are cheaper, and the first layer has most rotations.
    assert found.by_layer["dense 1"] > found.by_layer["dense 3"] > found.by_layer["dense 5"]


def test_the_probe_takes_about_as_long_as_it_says() -> None:
    rng = np.random.default_rng(1)
    made = built(network(rng, 4096, (64, 32, 16, 4)), rng.uniform(-1, 1, (2, 64)))
    machine = cost.probe(made.params, None, 0.02)
    assert 0 < machine.one_pass < machine.transform < 1e-2
