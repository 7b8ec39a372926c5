"""Models of every packing through the file: saved, loaded, run in the clear, and encrypted from the split pieces."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe import artefact
from lattice.fhe.compiler.client_part import ArgMax
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.packing.coefficients import compile_linear
from lattice.fhe.compiler.packing.rows import compile_rows
from lattice.fhe.compiler.packing.similarity import compile_encrypted_similarity, compile_similarity
from lattice.fhe.run import Blinding, Session, client_keys, decrypt, encrypt, evaluate, prepare
from lattice.fhe.simulate import clear, simulate
from tests.support.circuits import built, network, results_in_clear
from tests.support.circuits import compiled as from_circuit
from tests.unit.fhe.artefact.test_artefact import same
from tests.unit.fhe.compiler.packing.models import linear

FEATURES, SAMPLES = 12, 5
LOW, HIGH = np.full(FEATURES, -1.0), np.ones(FEATURES)


def samples(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (SAMPLES, FEATURES))


@cache
def matrix() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(3, FEATURES)) / 4, rng.normal(size=3)


@cache
def model(name: str) -> Compiled:
    weights, bias = matrix()
    if name == "linear":
        return compile_linear(linear(weights, bias), low=LOW, high=HIGH, after=(ArgMax(("a", "b", "c")),))
    if name == "rows":
        return compile_rows(linear(weights, bias), rows=2048, low=LOW, high=HIGH)
    if name == "similarity":
        return compile_similarity(np.random.default_rng(2).normal(size=(40, FEATURES)), best=4)
    rng = np.random.default_rng(7)
    circuit = network(rng, 4096, (16, 8, 4))
    inputs = rng.uniform(-1, 1, (4, 16))
    return from_circuit(built(circuit, inputs), 16, 4, (ArgMax(),))


NAMES = ["linear", "rows", "similarity", "network"]


def stored(name: str, folder: Path) -> Path:
    artefact.save(model(name), folder / name)
    return folder / name


@pytest.mark.parametrize("name", NAMES)
def test_every_packing_survives_the_file(name: str, tmp_path: Path) -> None:
    loaded = artefact.load(stored(name, tmp_path))
    assert same(loaded, Compiled(*(getattr(model(name), f) for f in ("program", "weights", "client")), loaded.report))
    assert loaded.report["parameters"]["security_bits"] == 128
    assert len(artefact.client_bytes(tmp_path / name)) < 20_000


def test_encrypted_rows_have_a_part_for_their_owner(tmp_path: Path) -> None:
    search = compile_encrypted_similarity(50, FEATURES)
    artefact.save(search.compiled, tmp_path / "search")
    view = artefact.client_view(artefact.client_bytes(tmp_path / "search"))
    assert view.database is not None
    assert view.database.feature_shape == (50, FEATURES)
    found, wanted = view.database.inputs, search.database.inputs
    assert all(np.array_equal(a.entries, b.entries) for a, b in zip(found, wanted, strict=True))
    with pytest.raises(LatticeError, match="rows"):
        clear(artefact.load(tmp_path / "search"), samples())


def test_the_clear_run_is_the_model() -> None:
    weights, bias = matrix()
    wanted = samples() @ weights.T + bias
    assert np.abs(clear(model("linear"), samples()).values - wanted).max() < 1e-12
    assert np.abs(clear(model("rows"), samples()).values - wanted).max() < 1e-12
    labels = clear(model("linear"), samples()).labels
    assert labels is not None
    assert list(labels) == ["abc"[index] for index in wanted.argmax(axis=1)]
    rng = np.random.default_rng(7)
    circuit = network(rng, 4096, (16, 8, 4))
    inputs = rng.uniform(-1, 1, (4, 16))
    assert np.abs(clear(model("network"), inputs).values - results_in_clear(circuit, inputs, 4)).max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_the_simulated_error_is_the_real_one(name: str) -> None:
    """Within a factor of four of what encryption does, on a few samples and several encryptions."""
    inputs = samples() if name != "network" else np.random.default_rng(5).uniform(-1, 1, (SAMPLES, 16))
    exact, noisy = clear(model(name), inputs).values, simulate(model(name), inputs, seed=1).values
    session = Session(model(name))
    real = [session.run(inputs).values - exact for _ in range(6)]
    predicted, measured = np.std(noisy - exact), np.std(real)
    assert 0 < predicted < 1e-2
    assert predicted / 4 < measured < predicted * 4
    assert not np.array_equal(noisy, simulate(model(name), inputs, seed=2).values)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    clear(model("linear"), np.zeros((4000, FEATURES)), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (4000, 4000)


def test_a_client_with_its_part_and_a_worker_with_the_file(tmp_path: Path) -> None:
    """What the platform does: the client never sees program or weights, the worker never a secret."""
    path = stored("network", tmp_path)
    inputs = np.random.default_rng(5).uniform(-1, 1, (1, 16))

    view = artefact.client_view(artefact.client_bytes(path))
    keys = client_keys(view)
    query = encrypt(view.client, view.params, keys.secret, inputs)

    prepared = prepare(artefact.load(path))
    results = evaluate(prepared, keys.evaluation, keys.public, query, Blinding(bytes(32), b"request"))

    answer = decrypt(view.client, view.params, keys.secret, results)
    wanted = clear(model("network"), inputs)
    assert np.abs(answer.values - wanted.values).max() < 1e-3
    assert np.array_equal(answer.labels, wanted.labels)
