"""Real encryption from samples to labels, on whatever backend is there; and what must not get out or in."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import ZERO, Circuit
from lattice.fhe.compiler.client_part import ArgMax
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.levels import wiring
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.ring.modulus import mul
from lattice.fhe.run import Blinding, OutOfRangeWarning, Session, encrypt, evaluate, request_hash, run
from tests.support.circuits import built, compiled, network, periodic, random_circuit, results_in_clear

SLOTS = 4096


def model(seed: int = 7, **how: bool) -> tuple[Compiled, Circuit, np.ndarray]:
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-1, 1, (4, 64))
    circuit = network(rng, SLOTS, (64, 32, 16, 4))
    return compiled(built(circuit, samples, **how), 64, 4, (ArgMax(("a", "b", "c", "d")),)), circuit, samples


@pytest.mark.parametrize("fold_first", [True, False])
def test_a_network_gives_the_numbers_and_labels_of_the_clear(fold_first: bool) -> None:
    made, circuit, samples = model(fold_first=fold_first)
    answer = run(made, samples)
    wanted = results_in_clear(circuit, samples, 4)
    assert np.abs(answer.values - wanted).max() < 1e-3
    assert list(answer.labels) == ["abcd"[index] for index in wanted.argmax(axis=1)]


@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_compute_what_the_trace_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, SLOTS, 6, depth=2)
    features, results = 2 * SLOTS, len(circuit.outputs) * SLOTS
    samples = rng.uniform(-1, 1, (1, features))
    made = compiled(built(circuit, samples), features, results)
    answer = Session(made).run(samples)
    assert np.abs(answer.values - results_in_clear(circuit, samples, results)).max() < 2e-3


def test_a_polynomial_on_its_interval_and_a_residual() -> None:
    everywhere = periodic(SLOTS, SLOTS)
    circuit = Circuit(
        SLOTS,
        1,
        (everywhere,),
        (
            steps.Combine((1,), (0,), np.full((1, 1, 1), 0.5)),
            steps.Polynomial(2, 1, (0.3, 0.5, 0.25, -0.1), (-2.0, 2.0)),
            steps.Add(3, 2, 0),
        ),
        (3,),
        (everywhere,),
    )
    samples = np.random.default_rng(0).uniform(-1, 1, (1, SLOTS))
    answer = Session(compiled(built(circuit, samples, scale_bits=24), SLOTS, SLOTS)).run(samples)
    assert np.abs(answer.values - results_in_clear(circuit, samples, SLOTS)).max() < 5e-3


# --- what must not get in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.full((1, 64), np.nan), "not a number"),
        (np.full((1, 64), np.inf), "infinite"),
        (np.zeros((1, 63)), "shape"),
        (np.zeros((0, 64)), "shape"),
        (np.float64(1.0), "shape"),
        ([["x"] * 64], "not an array"),
    ],
)
def test_bad_samples_are_refused(samples: object, message: str) -> None:
    made, _, _ = model()
    with pytest.raises(LatticeError, match=message) as caught:
        run(made, samples)
    assert caught.value.code == "input_invalid"


def test_samples_outside_the_calibrated_range_are_warned_of_or_refused() -> None:
    made, _, _ = model()
    session = Session(made)
    with pytest.warns(OutOfRangeWarning, match="features 5"):
        session.run(np.where(np.arange(64) == 5, 1.8, 0.0))
    with pytest.raises(LatticeError, match="calibrated range"):
        session.run(np.full(64, 3.0), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.run(np.where(np.arange(64) == 5, 1.2, 0.0))  # beside it by a tenth of its width: of the same kind


def test_more_samples_than_a_query_takes_are_refused_there_and_split_by_run() -> None:
    made, _, samples = model()
    session = Session(made)
    with pytest.raises(LatticeError, match="takes 1 samples"):
        encrypt(made.client, made.params, session.keys.secret, samples)
    assert len(session.run(samples).values) == 4


# --- what must not get out --------------------------------------------------------------------------------


def times_weights(weights: np.ndarray, places: np.ndarray) -> Compiled:
    """One multiplication by weights in every slot, of which only some are results."""
    circuit = wiring.masked(
        Circuit(
            SLOTS,
            1,
            (periodic(SLOTS, SLOTS),),
            (steps.Combine((1,), (0,), weights[None, None]),),
            (1,),
            (places.astype(np.int32),),
        )
    )
    samples = np.random.default_rng(0).uniform(-1, 1, (2, SLOTS))
    return compiled(built(circuit, samples), SLOTS, 4)


def asked(made: Compiled, session: Session) -> list[Ciphertext]:
    sent = encrypt(made.client, made.params, session.keys.secret, np.full(SLOTS, 0.5))
    return [x.expand(made.params) for x in sent]


@pytest.mark.parametrize("hidden", [ZERO, steps.JUNK])
def test_slots_without_a_result_decrypt_to_noise(hidden: int) -> None:
    """A client that decrypts all slots learns nothing of the weights there: what it sees hardly correlates with them,
    is enormous, and changes wholly with the request's hash."""
    rng = np.random.default_rng(1)
    weights = rng.uniform(-1, 1, SLOTS)
    made = times_weights(weights, np.where(np.arange(SLOTS) < 4, np.arange(SLOTS), hidden))
    session = Session(made)
    query = asked(made, session)
    seen = []
    for request in (b"one", b"two"):
        blinding = Blinding(bytes(32), request)
        (out,) = evaluate(session.prepared, session.keys.evaluation, session.keys.public, query, blinding)
        seen.append(Decryptor(session.keys.secret).values(out))
    for values in seen:
        assert np.abs(values[:4].real - 0.5 * weights[:4]).max() < 1e-3
        assert np.abs(values[4:].real).mean() > 0.05
        assert abs(np.corrcoef(values[4:].real, weights[4:])[0, 1]) < 0.08 or hidden == ZERO
        assert np.abs(values.imag).mean() > 0.05
    assert abs(np.corrcoef((seen[0] - seen[1])[4:].real, seen[1][4:].real)[0, 1]) > 0.3


def test_c1_is_randomised_anew_for_every_request() -> None:
    """Whoever knows c1 of the query cannot divide it out of c1 of the result: without blinding the quotient is the
    encoded weight; with it, it is another polynomial for every request."""
    made = times_weights(np.linspace(-1, 1, SLOTS), np.arange(SLOTS) % 4)
    session = Session(made)
    query = asked(made, session)
    moduli = made.params.q_moduli(0)
    inverse = np.array([[pow(int(x), -1, moduli[0]) for x in query[0].components[1][0, :64]]], dtype=np.uint64)
    quotients = []
    for request in (b"one", b"two"):
        blinding = Blinding(bytes(32), request)
        (out,) = evaluate(session.prepared, session.keys.evaluation, session.keys.public, query, blinding)
        quotients.append(mul(out.components[1][:1, :64], inverse, moduli[:1]))
    (plain, *_) = session.prepared.weights
    weight = np.asarray(getattr(plain, "polys", None))[0, :1, :64]
    assert not (quotients[0] == quotients[1]).any()
    assert not (quotients[0] == weight).any()


def test_two_workers_with_one_secret_agree_bit_for_bit() -> None:
    made, _, samples = model()
    session, other = Session(made), Session(made)
    query = [x.expand(made.params) for x in encrypt(made.client, made.params, session.keys.secret, samples[0])]
    request = request_hash(made.program.id, session.keys.public, query)
    results = [
        evaluate(prepared, session.keys.evaluation, session.keys.public, query, Blinding(b"s" * 32, request))[0]
        for prepared in (session.prepared, other.prepared)
    ]
    assert np.array_equal(results[0].components, results[1].components)
    different = Blinding(b"t" * 32, request)
    (third,) = evaluate(session.prepared, session.keys.evaluation, session.keys.public, query, different)
    assert not np.array_equal(results[0].components, third.components)


def test_the_hash_of_a_request_is_of_every_residue() -> None:
    made, _, samples = model()
    session = Session(made)
    (query,) = [x.expand(made.params) for x in encrypt(made.client, made.params, session.keys.secret, samples[0])]
    changed = query.components.copy()
    changed[1, -1, -1] ^= 1
    hashes = {
        request_hash(made.program.id, session.keys.public, [query]),
        request_hash(made.program.id, session.keys.public, [replace(query, components=changed)]),
        request_hash("other", session.keys.public, [query]),
    }
    assert len(hashes) == 3
    (sent,) = encrypt(made.client, made.params, session.keys.secret, samples[0])
    c0 = sent.c0.copy()
    c0[-1, -1] ^= 1
    received = [sent, replace(sent, c0=c0), replace(sent, seed=bytes(32))]
    assert len({request_hash(made.program.id, session.keys.public, [one]) for one in received}) == 3


def test_one_label_for_all_requests_leaves_no_two_replies_blinded_alike() -> None:
    """`evaluate` binds what was sent, in the form in which it was sent: the label need not tell requests apart."""
    made, _, samples = model()
    session = Session(made)
    label = Blinding(b"s" * 32, made.program.digest)

    def answer(query: SeededCiphertext) -> bytes:
        (out,) = evaluate(session.prepared, session.keys.evaluation, session.keys.public, [query], label)
        return out.components[1, 0].tobytes()

    (sent,) = encrypt(made.client, made.params, session.keys.secret, samples[0])
    blind = label.bound(session.prepared.identity, sent.seed, sent.c0).request_hash
    changed = replace(sent, c0=sent.c0 ^ (np.arange(sent.c0.size).reshape(sent.c0.shape) == 0).astype(np.uint64))
    assert answer(sent) == answer(sent)
    assert blind != label.bound(session.prepared.identity, changed.seed, changed.c0).request_hash
    assert answer(sent) != answer(changed)


def test_a_blinding_secret_is_neither_short_nor_shown() -> None:
    with pytest.raises(LatticeError, match="16 bytes"):
        Blinding(b"short", b"request")
    with pytest.raises(LatticeError, match="hash"):
        Blinding(bytes(32), b"")
    assert "provider_secret" not in repr(Blinding(b"s" * 32, b"request"))


def test_the_evaluator_does_not_import_what_handles_secrets() -> None:
    """A worker's process has no code that makes, holds or opens a secret key."""
    code = (
        "import sys, lattice.fhe.server_side, lattice.fhe.blinding; "
        "bad = [m for m in sys.modules if m.startswith('lattice.fhe.keys') or m == 'lattice.fhe.client_side']; "
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
