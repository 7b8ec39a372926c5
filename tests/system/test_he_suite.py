"""The native executables of `benchmarks/he_suite` do what `lattice.fhe` does, and the suite's harness accepts them.

Evaluation and blinding must agree bit for bit; what the executables' client makes must be readable by ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from benchmarks.he_suite import bundle, checkout
from benchmarks.he_suite import run as suite_run
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.blinding import SLOT_NOISE, Blinder, Blinding
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.evaluation_keys import EvaluationKey, EvaluationKeySet
from lattice.fhe.ckks.public_key import PublicKey
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.ckks.seeds import SEED_BYTES, KeyStream, Stream
from lattice.fhe.client_side import decrypt
from lattice.fhe.compiler.compile import compile as compile_model
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.hal import interpreter
from lattice.fhe.hal.program import parse_scale
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.serialise.bits import packed_bytes, unpack
from lattice.fhe.server_side import prepare
from tests.system.test_fhe_compile import mlp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BUILD = checkout.ROOT / ".cache" / "he_suite" / "test-build"
IDENTITY = 32
SAMPLES = {"few": 2, "single": 5, "batch": 5}
"""By packing; the server reads the keys of few queries row by row, and keeps those of more."""
TIMED_OUT = 600


@pytest.fixture(scope="module")
def executables() -> Path:
    """Built once and kept, so that only what changed is built again."""
    if shutil.which("cmake") is None:
        pytest.skip("the suite's executables are built with cmake, which is not installed")
    for command in (["-S", str(checkout.SUBMISSION), "-B", str(BUILD)], ["--build", str(BUILD), "--parallel", "2"]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True, timeout=TIMED_OUT)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return BUILD


class Blob:
    """Bytes, taken off the front."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)

    def take(self, count: int) -> memoryview:
        found, self.data = self.data[:count], self.data[count:]
        assert len(found) == count
        return found


@dataclass
class Place:
    """A folder as the harness makes it, with a small model's bundles."""

    root: Path
    executables: Path
    compiled: Compiled
    size: int
    samples: NDArray[np.float64]

    @property
    def io(self) -> Path:
        return self.root / "io" / checkout.NAMES[self.size]

    def run(self, name: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        found = {**os.environ, "LATTICE_SUITE_BUNDLES": str(self.root / "bundles"), **environment}
        command = [str(self.executables / name), str(self.size)]
        done = subprocess.run(command, cwd=self.root, env=found, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done

    def read(self, path: str) -> Blob:
        """Without the program's identity, which everything that travels begins with."""
        blob = Blob((self.io / path).read_bytes())
        blob.take(IDENTITY)
        return blob

    @cached_property
    def secret(self) -> SecretKey:
        packed = np.frombuffer((self.io / "secret_key/secret_key.bin").read_bytes(), dtype=np.uint8)
        fields = (packed[:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8) & 3).ravel()
        return SecretKey(self.compiled.params, fields.astype(np.int8) - np.int8(1))

    def evaluation_keys(self) -> EvaluationKeySet:
        params, blob, keys = self.compiled.params, self.read("public_keys/evaluation_keys.bin"), []
        for spec in self.compiled.keys:
            plan, seed = params.digit_plan(spec.level), bytes(blob.take(SEED_BYTES))
            size = packed_bytes(plan.moduli, params.n)
            b = np.stack([unpack(blob.take(size), plan.moduli, params.n) for _ in plan.digits])
            keys.append(EvaluationKey(params.id, spec, seed, b))
        assert not blob.data
        return EvaluationKeySet(params, keys)

    def public_key(self) -> PublicKey:
        params, blob = self.compiled.params, self.read("public_keys/public_key.bin")
        return PublicKey(params.id, bytes(blob.take(SEED_BYTES)), unpack(blob.data, params.primes(), params.n))

    def upload(self) -> list[SeededCiphertext]:
        params, blob, found = self.compiled.params, self.read("ciphertexts_upload/inputs.bin"), []
        while blob.data:
            for packed in self.compiled.client.inputs:
                moduli, seed = params.q_moduli(packed.level), bytes(blob.take(SEED_BYTES))
                c0 = unpack(blob.take(packed_bytes(moduli, params.n)), moduli, params.n)
                found.append(SeededCiphertext(params.id, packed.level, parse_scale(packed.scale), seed, c0))
        return found

    def download(self) -> list[Ciphertext]:
        params, found = self.compiled.params, []
        blob = Blob((self.io / "ciphertexts_download/outputs.bin").read_bytes())
        while blob.data:
            for packed in self.compiled.client.outputs:
                moduli = params.q_moduli(packed.level)
                size = packed_bytes(moduli, params.n)
                halves = np.stack([unpack(blob.take(size), moduli, params.n) for _ in range(2)])
                found.append(Ciphertext(params.id, packed.level, parse_scale(packed.scale), halves))
        return found


@pytest.fixture(scope="module", params=SAMPLES)
def place(request: pytest.FixtureRequest, executables: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """After the client's first three steps."""
    rng = np.random.default_rng(3)
    samples = rng.uniform(0, 1, size=(200, 32)).round(6)
    packing = "batch" if request.param == "batch" else "single"
    options = Options() if packing == "single" else Options(batch=8)
    compiled = compile_model(mlp(), samples, options=options)
    root, size = tmp_path_factory.mktemp(request.param), 1 if packing == "single" else 2
    bundle.write(compiled, root / "bundles" / packing)
    made = Place(root, executables, compiled, size, samples[: SAMPLES[request.param]])
    pixels = root / "datasets" / checkout.NAMES[size] / "intermediate" / "test_pixels.txt"
    pixels.parent.mkdir(parents=True)
    pixels.write_text("".join(" ".join(f"{x:.6f}" for x in row) + "\n" for row in made.samples))
    for step in ("client_key_generation", "client_preprocess_input", "client_encode_encrypt_input"):
        made.run(step)
    return made


def test_our_decryptor_reads_what_the_client_encrypted(place: Place) -> None:
    part, sent = place.compiled.client, place.upload()
    decryptor = Decryptor(place.secret)
    for query in range(len(sent) // len(part.inputs)):
        rows = place.samples[query * part.batch : (query + 1) * part.batch]
        flat = np.zeros(part.batch * rows.shape[1])
        flat[: rows.size] = rows.ravel()
        for number, packed in enumerate(part.inputs):
            expected = np.where(packed.entries >= 0, flat[np.maximum(packed.entries, 0)], 0.0)
            found = decryptor.real_values(sent[query * len(part.inputs) + number])
            assert np.abs(found - expected).max() < 1e-3


def test_secret_keys_are_fresh_and_nobody_else_may_read_them(place: Place) -> None:
    coefficients = place.secret.coefficients()
    assert {-1, 0, 1} == set(coefficients.tolist())
    assert 0.28 < float((coefficients == 0).mean()) < 0.39
    assert (place.io / "secret_key/secret_key.bin").stat().st_mode & 0o077 == 0


def test_server_gives_the_bits_of_the_interpreter_and_the_blinder(place: Place, tmp_path: Path) -> None:
    compiled, part, public = place.compiled, place.compiled.client, place.public_key()
    prepared, keys, sent = prepare(compiled), place.evaluation_keys(), place.upload()
    blinding, n = Blinding(bytes(32), b"a request"), compiled.params.n
    blinder, expected, streams = Blinder(compiled.params, public), [], b""
    for query in range(0, len(sent), len(part.inputs)):
        inputs = [x.expand(compiled.params) for x in sent[query : query + len(part.inputs)]]
        results = interpreter.run(prepared.backend, compiled.program, inputs, keys, prepared.weights)
        for result, entries in zip(results, prepared.entries, strict=True):
            expected.append(blinder.blind(result, entries, blinding, len(expected)))
            seed = blinding.seed(len(expected) - 1)
            streams += KeyStream(seed, Stream.EPHEMERAL).words(n // 16 + 64).tobytes()
            streams += b"".join(KeyStream(seed, Stream.ERROR, half).words(n).tobytes() for half in (0, 1))
            streams += KeyStream(seed, SLOT_NOISE).words(n).tobytes()
    (tmp_path / "streams").write_bytes(streams)
    place.run("server_compute_with", LATTICE_SUITE_BLINDING=str(tmp_path / "streams"))
    found = place.download()
    assert len(found) == len(expected)
    for ours, theirs in zip(expected, found, strict=True):
        assert np.array_equal(ours.components, theirs.components)


def test_client_reads_the_scores_that_our_client_reads(place: Place) -> None:
    for step in ("server_encrypted_compute", "client_decrypt_decode", "client_postprocess"):
        place.run(step)
    part, received = place.compiled.client, place.download()
    per_query = len(part.outputs)
    answers = [
        decrypt(part, place.compiled.params, place.secret, received[k : k + per_query])
        for k in range(0, len(received), per_query)
    ]
    count = len(place.samples)
    expected = np.concatenate([answer.values for answer in answers])[:count]
    scores = np.fromfile(place.io / "intermediate/scores.bin").reshape(count, part.results)
    assert np.abs(scores - expected).max() < 1e-9
    clear = mlp().graph.run(place.samples)
    assert np.abs(scores - clear).max() < 0.02
    predictions = [int(line) for line in (place.io / "encrypted_model_predictions.txt").read_text().split()]
    assert predictions == scores.argmax(axis=1).tolist()


def test_replies_to_one_request_share_no_randomness(place: Place) -> None:
    replies = []
    for _ in range(2):
        place.run("server_encrypted_compute")
        replies.append(place.download())
    for first, second in zip(*replies, strict=True):
        assert (first.components[1] != second.components[1]).mean() > 0.99


@pytest.mark.parametrize("damage", ["short", "foreign", "residue"])
def test_server_refuses_keys_that_do_not_fit(place: Place, damage: str) -> None:
    path = place.io / "public_keys" / "evaluation_keys.bin"
    good = path.read_bytes()
    bad = {"short": good[:-8], "foreign": b"\xff" * 8 + good[8:], "residue": good[:64] + b"\xff" * 512 + good[576:]}
    try:
        path.write_bytes(bad[damage])
        done = place.run("server_encrypted_compute", check=False)
    finally:
        path.write_bytes(good)
    assert done.returncode == 1
    assert done.stderr.startswith(str(place.executables))


def test_client_makes_no_key_past_the_security_bound(place: Place, tmp_path: Path) -> None:
    shutil.copytree(place.root / "bundles", tmp_path / "bundles")
    (path,) = (tmp_path / "bundles").glob("*/client.bundle")
    data = bytearray(path.read_bytes())
    data[bundle.PAGE + IDENTITY] -= 2  # log2 N of the first section
    path.write_bytes(data)
    before = (place.io / "secret_key/secret_key.bin").read_bytes()
    done = place.run("client_key_generation", check=False, LATTICE_SUITE_BUNDLES=str(tmp_path / "bundles"))
    assert done.returncode == 1
    assert "bound" in done.stderr
    assert (place.io / "secret_key/secret_key.bin").read_bytes() == before


def test_bundle_refuses_models_that_its_client_does_not_know(place: Place, tmp_path: Path) -> None:
    unfinished = replace(place.compiled, client=replace(place.compiled.client, after=()))
    with pytest.raises(LatticeError, match="choice"):
        bundle.write(unfinished, tmp_path)
    assert not list(tmp_path.iterdir())


def test_harness_accepts_single_and_small(tmp_path: Path) -> None:
    """The real harness, where it and its Python environment were provided: see benchmarks/he_suite/README.md."""
    cache = Path(os.environ.get("LATTICE_SUITE_CACHE", suite_run.CACHE))
    try:
        python = checkout.interpreter(None, cache)
        if not (cache / "ml-inference").exists():
            pytest.skip(f"the harness is not in {cache}: run `python -m benchmarks.he_suite.run` once")
    except checkout.HarnessUnavailableError as fault:
        pytest.skip(str(fault))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.he_suite.run", "--cache", str(cache), "--python", str(python),
         "--runs", "1", "--json", str(tmp_path / "out.json")],
        cwd=checkout.ROOT, capture_output=True, text=True, timeout=TIMED_OUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["accuracy"]["of"] for row in rows] == [1, 15]
    assert sum(row["accuracy"]["correct"] for row in rows) >= 15
    assert all(row["key_bytes"] <= 12e6 for row in rows)


def test_scales_are_exact_where_they_matter(place: Place) -> None:
    """A bundle has scales as doubles: at decoding a relative error of 2^-53, at encoding none, for they are powers."""
    for packed in place.compiled.client.inputs:
        assert Fraction(float(parse_scale(packed.scale))) == parse_scale(packed.scale)
