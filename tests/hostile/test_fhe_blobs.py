"""Hostile bytes: every decoder answers with a typed error, soon, and without allocating what the bytes ask for."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.store_format import open_with_key, open_with_passphrase, seal_with_key, seal_with_passphrase
from lattice.fhe.serialise.ciphertexts import decode_ciphertext, decode_seeded_ciphertext, encode_ciphertext
from lattice.fhe.serialise.frame import CHECKSUM_BYTES, MAX_HEADER, Kind, read_scale
from lattice.fhe.serialise.keys import (
    decode_evaluation_keys,
    decode_public_key,
    encode_evaluation_keys,
    encode_public_key,
)
from lattice.fhe.serialise.parameters import decode_parameters, encode_parameters
from tests.support.fhe import small

ALLOWED = {"blob_invalid", "parameters_mismatch", "parameters_insecure", "secret_locked"}
WRAPPING = bytes(32)
P = small()

Reader = Callable[[bytes], Any]
READERS: dict[str, Reader] = {
    "parameters": decode_parameters,
    "ciphertext": lambda data: decode_ciphertext(data, P),
    "seeded": lambda data: decode_seeded_ciphertext(data, P),
    "public": lambda data: decode_public_key(data, P),
    "evaluation": lambda data: decode_evaluation_keys(data, P),
    "secret": lambda data: open_with_key(data, WRAPPING),
}


@cache
def samples() -> dict[str, bytes]:
    """A valid blob for each reader."""
    generator = KeyGenerator(P)
    secret = generator.secret_key()
    seeded = SecretKeyEncryptor(secret).encrypt_values([1.0], level=0)
    return {
        "parameters": encode_parameters(P),
        "ciphertext": encode_ciphertext(seeded.expand(P), P),
        "seeded": encode_ciphertext(seeded, P),
        "public": encode_public_key(generator.public_key(secret), P),
        "evaluation": encode_evaluation_keys(generator.evaluation_keys(secret, relinearisation=0, conjugation=0)),
        "secret": seal_with_key(secret, WRAPPING),
    }


def checksummed(data: bytes) -> bytes:
    """Somebody who can compute a checksum."""
    return data + hashlib.sha256(data).digest()[:CHECKSUM_BYTES]


def forge(kind: int, header: object, body: bytes = b"", *, head_size: int | None = None, version: int = 1) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    size = len(head) if head_size is None else head_size
    return checksummed(struct.pack("<4sBBHIQ", b"LFHE", version, kind, 0, size, len(body)) + head + body)


def refuse(read: Reader, data: bytes) -> str:
    """The code of the typed error; anything else fails the test."""
    with pytest.raises(LatticeError) as caught:
        read(data)
    assert caught.value.code in ALLOWED
    return caught.value.code


def attempt(read: Reader, data: bytes) -> None:
    """Either a value or a typed error."""
    try:
        read(data)
    except LatticeError as error:
        if error.code not in ALLOWED:
            raise


@pytest.mark.parametrize("name", READERS)
def test_truncation_at_every_kind_of_place(name: str) -> None:
    data = samples()[name]
    cuts = {*range(60), len(data) // 2, *range(len(data) - 40, len(data))}
    for cut in cuts:
        assert refuse(READERS[name], data[:cut]) == "blob_invalid"


@pytest.mark.parametrize("name", READERS)
def test_anything_appended_or_flipped(name: str) -> None:
    data = samples()[name]
    assert refuse(READERS[name], data + b"\0") == "blob_invalid"
    assert refuse(READERS[name], data * 2) == "blob_invalid"
    rng = random.Random(name)
    for _ in range(60):
        at, bit = rng.randrange(len(data)), 1 << rng.randrange(8)
        flipped = bytearray(data)
        flipped[at] ^= bit
        assert refuse(READERS[name], bytes(flipped)) == "blob_invalid"


@pytest.mark.parametrize("name", READERS)
def test_damage_under_a_right_checksum(name: str) -> None:
    data = samples()[name][:-CHECKSUM_BYTES]
    rng = random.Random(name)
    for _ in range(150):
        at = rng.randrange(min(len(data), 700))
        changed = bytearray(data)
        changed[at] = rng.randrange(256)
        attempt(READERS[name], checksummed(bytes(changed)))


@pytest.mark.parametrize("name", READERS)
def test_one_kind_is_not_another(name: str) -> None:
    for other, data in samples().items():
        if other != name:
            assert refuse(READERS[name], data) == "blob_invalid"


@pytest.mark.parametrize("size", [MAX_HEADER + 1, (1 << 32) - 1])
def test_a_header_that_claims_too_much(size: int) -> None:
    for read in READERS.values():
        assert refuse(read, forge(Kind.CIPHERTEXT, b"{}", head_size=size)) == "blob_invalid"


def test_future_versions_are_named() -> None:
    data = forge(Kind.PARAMETERS, {}, version=2)
    with pytest.raises(LatticeError, match="version 2; this program reads version 1"):
        decode_parameters(data)


CIPHERTEXT_HEADER = {"params": P.id, "level": 1, "scale": "4000000/1", "encoding": "slots", "components": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"level": 2},
        {"level": -1},
        {"level": 1 << 40},
        {"level": 1.5},
        {"level": True},
        {"components": 1},
        {"components": 1 << 60},
        {"components": -2},
        {"scale": "0/1"},
        {"scale": "-4/1"},
        {"scale": "8/2"},
        {"scale": "08/1"},
        {"scale": "0x8/1"},
        {"scale": "8"},
        {"scale": "1/0"},
        {"scale": "1/2/3"},
        {"scale": " 8/1"},
        {"scale": "f" * 40_000 + "/1"},
        {"encoding": "bits"},
        {"params": 3},
        {"extra": 1},
    ],
)
def test_headers_that_mean_nothing(change: dict[str, object]) -> None:
    for kind, read in ((Kind.CIPHERTEXT, READERS["ciphertext"]), (Kind.SEEDED_CIPHERTEXT, READERS["seeded"])):
        assert refuse(read, forge(kind, {**CIPHERTEXT_HEADER, **change})) == "blob_invalid"


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 60_000, b'{"params":' * 6000, b'{ "params": "x" }', b"1e999"]
)
def test_headers_that_are_no_objects(raw: bytes) -> None:
    for kind, name in zip(Kind, ("parameters", "ciphertext", "seeded", "public", "evaluation", "secret"), strict=True):
        assert refuse(READERS[name], forge(kind, raw)) == "blob_invalid"


def test_a_header_has_one_form_only() -> None:
    data = samples()["ciphertext"]
    head_size = struct.unpack_from("<I", data, 8)[0]
    header, body = json.loads(data[20 : 20 + head_size]), data[20 + head_size : -CHECKSUM_BYTES]
    attempt(READERS["ciphertext"], forge(Kind.CIPHERTEXT, header, body))
    for other in (json.dumps(header).encode(), json.dumps(header, sort_keys=True, separators=(",", ":")).encode()):
        with pytest.raises(LatticeError, match="canonical"):
            decode_ciphertext(forge(Kind.CIPHERTEXT, other, body), P)


@pytest.mark.parametrize(
    "keys",
    [
        [[0, 0], [0, 0]],
        [[5, 0], [0, 0]],
        [[2, 0]],
        [[-1, 0]],
        [[5, 7]],
        [[5, -1]],
        [[1 << 70, 0]],
        [[2 * i + 1, 0] for i in range(4100)],
        [[5]],
        [5],
    ],
)
def test_key_lists_that_mean_nothing(keys: list[object]) -> None:
    assert refuse(READERS["evaluation"], forge(Kind.EVALUATION_KEYS, {"params": P.id, "keys": keys})) == "blob_invalid"


def test_nothing_is_allocated_on_a_strangers_word() -> None:
    """4,000 keys are promised in a few kilobytes."""
    promised = [[2 * i + 1, 1] for i in range(4000)]
    blobs = [
        (READERS["evaluation"], forge(Kind.EVALUATION_KEYS, {"params": P.id, "keys": promised})),
        (READERS["ciphertext"], forge(Kind.CIPHERTEXT, {**CIPHERTEXT_HEADER, "components": 3})),
        (READERS["ciphertext"], struct.pack("<4sBBHIQ", b"LFHE", 1, Kind.CIPHERTEXT, 0, 2, 1 << 62) + bytes(40)),
    ]
    tracemalloc.start()
    try:
        for read, data in blobs:
            refuse(read, data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def parameters_header(**change: object) -> dict[str, object]:
    data = P.to_dict()
    return {**data, "scale": "4000000/1", **change}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"log_n": 11}, "parameters_insecure"),
        ({"log_n": 200}, "blob_invalid"),
        ({"log_n": -1}, "blob_invalid"),
        ({"base": [7]}, "blob_invalid"),
        ({"base": [1 << 100]}, "blob_invalid"),
        ({"base": list(range(5000))}, "blob_invalid"),
        ({"levels": [[]] * 2000}, "blob_invalid"),
        ({"secret": "sparse"}, "parameters_insecure"),
        ({"error_eta": 2}, "parameters_insecure"),
        ({"error_eta": 1 << 50}, "blob_invalid"),
        ({"security": "none"}, "blob_invalid"),
        ({"special": list(P.base)}, "blob_invalid"),
    ],
)
def test_parameters_are_checked_anew(change: dict[str, object], code: str) -> None:
    assert refuse(decode_parameters, forge(Kind.PARAMETERS, parameters_header(**change))) == code


def test_a_secret_files_cost_is_bounded() -> None:
    secret = KeyGenerator(P).secret_key()
    data = seal_with_passphrase(secret, "x", log_cost=14)
    for cost in (63, 30, 19, 13, 1, -1):
        changed = data.replace(b'"log_cost":14', b'"log_cost":%d' % cost)
        head_size = struct.unpack_from("<I", data, 8)[0] + len(changed) - len(data)
        forged = changed[:8] + struct.pack("<I", head_size) + changed[12:-CHECKSUM_BYTES]
        assert refuse(lambda blob: open_with_passphrase(blob, "x"), checksummed(forged)) == "blob_invalid"


def test_a_secret_of_weaker_parameters_is_not_opened() -> None:
    """The header is authenticated, and checked before the passphrase matters."""
    header = {"key_id": "fsk_x", "log_cost": 0, "salt": "", "params": parameters_header(log_n=11)}
    assert refuse(READERS["secret"], forge(Kind.SECRET_KEY, header, bytes(2048))) == "parameters_insecure"
    data = samples()["secret"][:-CHECKSUM_BYTES]
    moved = data.replace(b"fsk_", b"fsj_")
    assert refuse(READERS["secret"], checksummed(moved)) == "secret_locked"


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(READERS)), st.data())
def test_mutations_never_crash(name: str, data: st.DataObject) -> None:
    raw = bytearray(samples()[name][:-CHECKSUM_BYTES])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 600)))
        piece = data.draw(st.binary(min_size=0, max_size=9))
        raw[at : at + data.draw(st.integers(0, 9))] = piece
    attempt(READERS[name], checksummed(bytes(raw)))
    attempt(READERS[name], bytes(raw))


@given(st.binary(max_size=300))
def test_noise_never_crashes(raw: bytes) -> None:
    for kind, read in zip(Kind, READERS.values(), strict=True):
        attempt(read, raw)
        attempt(read, forge(kind, raw))


@given(st.text(max_size=60))
def test_scales_have_one_form(text: str) -> None:
    try:
        scale = read_scale(text)
    except LatticeError:
        return
    assert f"{scale.numerator:x}/{scale.denominator:x}" == text


FUZZER = """
import sys, atheris
with atheris.instrument_imports(include=["lattice.fhe.serialise", "lattice.fhe.keys", "lattice.fhe.ckks"]):
    from tests.hostile.test_fhe_blobs import READERS, attempt, checksummed, samples
readers = list(READERS.values())
def one(data):
    if not data:
        return
    read = readers[data[0] % len(readers)]
    attempt(read, data[1:])
    attempt(read, checksummed(data[1:]))
    raw = bytearray(list(samples().values())[data[0] % len(readers)][:-16])
    at = 0
    while at + 3 < len(data) - 1:
        raw[(data[at + 1] << 8 | data[at + 2]) % min(len(raw), 900)] = data[at + 3]
        at += 3
    attempt(read, checksummed(bytes(raw)))
atheris.Setup([sys.argv[0], "-max_total_time=20", "-rss_limit_mb=2048", "-timeout=10"], one)
atheris.Fuzz()
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_fuzzer_finds_nothing() -> None:
    """Twenty seconds of libFuzzer over every decoder; without atheris, 3,000 random mutations."""
    import importlib.util
    import subprocess

    if importlib.util.find_spec("atheris") is None:
        rng = random.Random(0)
        for _ in range(3000):
            name = rng.choice(sorted(READERS))
            raw = bytearray(samples()[name][:-CHECKSUM_BYTES])
            for _ in range(rng.randrange(1, 9)):
                raw[rng.randrange(min(len(raw), 900))] = rng.randrange(256)
            attempt(READERS[name], checksummed(bytes(raw)))
        return
    done = subprocess.run([sys.executable, "-c", FUZZER], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "runs in" in done.stderr
