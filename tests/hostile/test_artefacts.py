"""Hostile model files: no code runs, nothing is allocated on their word, and every fault is a typed error, soon."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe import artefact
from lattice.fhe.artefact.container import LIMITS
from tests.support.compiled import compiled

ALLOWED = {"artefact_invalid", "artefact_untrusted", "parameters_insecure"}
NAMES = tuple(LIMITS)
Sections = dict[str, bytes]
READERS: dict[str, Callable[[bytes], Any]] = {
    "load": artefact.load,
    "inspect": artefact.inspect,
    "client_view": artefact.client_view,
    "client_bytes": artefact.client_bytes,
}


@cache
def valid() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        artefact.save(compiled(), Path(folder) / "model")
        return (Path(folder) / "model").read_bytes()


def sections() -> Sections:
    """The valid file's, taken apart."""
    sizes = artefact.inspect(valid()).sizes
    out, end = {}, len(valid())
    for name in reversed(NAMES):
        out[name] = valid()[end - sizes[name] : end]
        end -= sizes[name]
    return {name: out[name] for name in NAMES}


def forge(parts: Sections | None = None, *, head: object = None, version: int = 1, **change: bytes) -> bytes:
    """A file by somebody who can compute every hash."""
    parts = {**(parts or sections()), **change}
    entries = [
        {"name": name, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in parts.items()
    ]
    raw = head if isinstance(head, bytes) else compact(head or {"name": "tiny", "sections": entries})
    start = struct.pack("<8sHHI", b"LATTMODL", version, 0, len(raw)) + raw
    return start + hashlib.sha256(start).digest() + bytes(96) + b"".join(parts.values())


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def client_with(**change: object) -> bytes:
    """The client's section with some fields replaced, of the section itself or of the client's part in it."""
    fields = msgspec.msgpack.decode(sections()["client"])
    outer = {key: value for key, value in change.items() if key in (*fields, "extra")}
    inner = {key: value for key, value in change.items() if key not in outer}
    return msgspec.msgpack.encode({**fields, "client": {**fields["client"], **inner}, **outer})


def tensors_with(header: object, body: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else compact(header)
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + body


def refuse(data: bytes, reader: str = "load") -> str:
    with pytest.raises(LatticeError) as caught:
        READERS[reader](data)
    assert caught.value.code in ALLOWED
    return caught.value.code


def attempt(data: bytes) -> None:
    for read in READERS.values():
        try:
            read(data)
        except LatticeError as error:
            if error.code not in ALLOWED:
                raise


def test_the_forger_can_forge() -> None:
    assert forge() == valid()
    assert client_with() == sections()["client"]


def test_truncation_at_every_kind_of_place() -> None:
    data, sizes = valid(), artefact.inspect(valid()).sizes
    ends = np.cumsum([len(data) - sum(sizes.values()), *sizes.values()]).tolist()
    cuts = {*range(160), *(end + step for end in ends for step in (-9, -1, 0, 1)), len(data) // 2}
    for cut in sorted(cut for cut in cuts if cut < len(data)):
        for reader in READERS:
            if cut == ends[1] and reader != "load":
                READERS[reader](data[:cut])  # which is what a client is sent
            else:
                assert refuse(data[:cut], reader) == "artefact_invalid"


def test_anything_appended_or_flipped() -> None:
    data, rng = valid(), random.Random(1)
    for tail in (b"\0", data):
        assert refuse(data + tail) == "artefact_invalid"
    head = len(data) - sum(artefact.inspect(data).sizes.values())
    for at in [*range(0, head, 7), *(rng.randrange(len(data)) for _ in range(60))]:
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        assert refuse(bytes(changed)) in ALLOWED
        assert refuse(bytes(changed), "inspect") in ALLOWED


def test_damage_under_right_hashes() -> None:
    rng = random.Random(2)
    for name in NAMES:
        for _ in range(40):
            raw = bytearray(sections()[name])
            raw[rng.randrange(min(len(raw), 600))] = rng.randrange(256)
            attempt(forge(**{name: bytes(raw)}))


def test_future_versions_are_named() -> None:
    with pytest.raises(LatticeError, match="version 2; this program reads version 1"):
        artefact.load(forge(version=2))


@pytest.mark.parametrize("size", [-1, 0, 1 << 33, 1 << 62, 1 << 64, 1.5, "9", None, True])
@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_lie(size: object, name: str) -> None:
    entries = [{"name": n, "size": len(raw), "sha256": "0" * 64} for n, raw in sections().items()]
    entries[NAMES.index(name)]["size"] = size
    tracemalloc.start()
    try:
        for reader in READERS:
            assert refuse(forge(head={"name": "x", "sections": entries}), reader) == "artefact_invalid"
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "names",
    [
        ("client", "report", "program"),
        ("client", "report", "program", "weights", "weights"),
        ("client", "client", "program", "weights"),
        ("report", "client", "program", "weights"),
        ("../../etc/passwd", "report", "program", "weights"),
        ("client", "report", "program", "/weights"),
        (),
    ],
)
def test_other_sections(names: tuple[str, ...]) -> None:
    entries = [{"name": n, "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()} for n in names]
    head = compact({"name": "x", "sections": entries})
    assert refuse(forge(dict.fromkeys(map(str, range(len(names))), b"x"), head=head)) == "artefact_invalid"


@pytest.mark.parametrize(
    "head",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 60_000, b'{"name":' * 6000, b'{"name":"x","sections":[],"more":1}'],
)
def test_headers_that_are_no_headers(head: bytes) -> None:
    assert refuse(forge(head=head)) == "artefact_invalid"


@pytest.mark.parametrize("name", ["a\nb", "\x1b]0;title\x07", "\u202egnp.exe", "x" * 201])
def test_names_that_would_fool_a_terminal(name: str) -> None:
    head = json.loads(valid()[16 : 16 + struct.unpack_from("<I", valid(), 12)[0]])
    raw = json.dumps({**head, "name": name}, separators=(",", ":"), ensure_ascii=False).encode()
    assert refuse(forge(head=raw)) == "artefact_invalid"


# --- the client's part ----------------------------------------------------------------------------------------------


def deflated(*layouts: list[int]) -> bytes:
    steps = [np.diff(np.array(entries, np.int64), prepend=0).astype(np.uint32).tobytes() for entries in layouts]
    return zlib.compress(b"".join(steps))


def bounds(*values: float) -> bytes:
    return zlib.compress(struct.pack(f"<{len(values)}d", *values))


SLOTS = 2048
PACKED = {"entries": SLOTS, "level": 1, "scale": "4000000/1", "encoding": "slots"}
BOTTOM = {**PACKED, "level": 0}
RIGHT_IN, RIGHT_OUT = list(range(8)) + [-1] * (SLOTS - 8), [0, 1, 2, -2, 3, 4, 5] + [-2] * (SLOTS - 7)


@pytest.mark.parametrize(
    "change",
    [
        {"layouts": deflated([8, *RIGHT_IN[1:]], RIGHT_OUT)},
        {"layouts": deflated([1 << 30, *RIGHT_IN[1:]], RIGHT_OUT)},
        {"layouts": deflated([-3, *RIGHT_IN[1:]], RIGHT_OUT)},
        {"layouts": deflated(RIGHT_IN, [6, *RIGHT_OUT[1:]])},
        {"layouts": deflated(RIGHT_IN, [-(1 << 31), *RIGHT_OUT[1:]])},
        {"layouts": deflated(RIGHT_IN, [-2] * SLOTS)},
        {"layouts": deflated(RIGHT_IN)},
        {"layouts": deflated(RIGHT_IN, RIGHT_OUT, [0])},
        {"layouts": deflated(RIGHT_IN, RIGHT_OUT) + b"x"},
        {"layouts": b"x"},
        {"layouts": b""},
        {"inputs": []},
        {"outputs": []},
        {"inputs": [PACKED] * 2},
        {"inputs": [{**PACKED, "entries": 1 << 40}]},
        {"inputs": [{**PACKED, "entries": 0}]},
        {"inputs": [{**PACKED, "entries": -4}]},
        {"inputs": [{**PACKED, "level": 7}]},
        {"inputs": [{**PACKED, "level": 0}]},
        {"inputs": [{**PACKED, "scale": "8/2"}]},
        {"inputs": [{**PACKED, "scale": "2/1"}]},
        {"inputs": [{**PACKED, "encoding": "pickle"}]},
        {"outputs": [{**BOTTOM, "level": 1}]},
        {"inputs": [{**PACKED, "entries": SLOTS - 1}], "outputs": [{**BOTTOM, "entries": SLOTS + 1}]},
        {"feature_shape": [1 << 40]},
        {"feature_shape": [-4]},
        {"feature_shape": [0]},
        {"feature_shape": [4] + [1] * 20},
        {"feature_shape": [1 << 20] * 8},
        {"feature_shape": [5]},
        {"batch": 0},
        {"batch": 1 << 40},
        {"batch": 3},
        {"results": 1 << 62},
        {"results": 0},
        {"bounds": bounds(-1, -1, -1, float("nan"), 1, 1, 1, 1)},
        {"bounds": bounds(-1, -1, -1, 5, 1, 1, 1, 1)},
        {"bounds": bounds(-1, 1)},
        {"bounds": bounds()},
        {"bounds": zlib.compress(b"1234567")},
        {"bounds": bounds(-1, 1), "ranges": 1},
        {"ranges": 1 << 40},
        {"ranges": -1},
        {"before": [{"step": "exec"}]},
        {"before": [{"step": "normalise"}] * 9},
        {"before": [{"step": "normalise", "code": "print()"}]},
        {"before": [{"step": "to_unit", "middle": [0.0] * 3, "exponents": [0] * 4}]},
        {"before": [{"step": "to_unit", "middle": [0.0] * 4, "exponents": [1 << 62] * 4}]},
        {"before": [{"step": "to_unit", "middle": [float("nan")] * 4, "exponents": [0] * 4}]},
        {"after": [{"step": "argmax", "labels": ["a", "b"]}]},
        {"after": [{"step": "argmax", "labels": ["a", "b", "\x1b[2J"]}]},
        {"after": [{"step": "threshold", "value": float("nan"), "labels": []}]},
        {"after": [{"step": "largest", "count": 1 << 40, "smallest": False}]},
        {"after": [{"step": "largest", "count": 1, "smallest": False}, {"step": "argmax", "labels": []}]},
        {"after": [{"step": "vote", "labels": ["a", "b"]}]},
        {"after": [{"step": "vote", "labels": []}]},
        {"after": [{"step": "neighbours", "count": 1, "members": [0, 1, 2], "labels": ["a", "b"]}]},
        {"after": [{"step": "neighbours", "count": 1, "members": [0, -1, 0], "labels": ["a", "b"]}]},
        {"after": [{"step": "neighbours", "count": 1, "members": [0], "labels": ["a", "b"]}]},
        {"after": [{"step": "neighbours", "count": 9, "members": [0, 1, 0], "labels": ["a", "b"]}]},
        {"keys": [[5, 1], [5, 1]]},
        {"keys": [[5, 1], [3, 1]]},
        {"keys": [[2, 1]]},
        {"keys": [[5, 9]]},
        {"keys": [[1 << 63, 1]]},
        {"keys": []},
        {"keys": [[2 * i + 1, 0] for i in range(4097)]},
        {"parameters": {}},
        {"program": "prg_" + "0" * 32},
        {"program": "\x1b"},
        {"version": 2},
        {"extra": 1},
        {"surplus": 1},
        {"database": {}},
        {"database": msgspec.msgpack.decode(sections()["client"])["client"]},
    ],
    ids=lambda change: " ".join(f"{key}={value!r:.50}" for key, value in change.items()),
)
def test_clients_that_mean_nothing(change: dict[str, object]) -> None:
    assert refuse(forge(client=client_with(**change))) == "artefact_invalid"


def test_the_layouts_above_are_right_but_for_the_one_change() -> None:
    data = forge(client=client_with(layouts=deflated(RIGHT_IN, RIGHT_OUT), inputs=[PACKED], outputs=[BOTTOM]))
    assert artefact.load(data).client.batch == 2


def test_weak_parameters_are_refused() -> None:
    fields = msgspec.msgpack.decode(sections()["client"])["parameters"]
    data = forge(client=client_with(parameters={**fields, "log_n": 11}))
    assert refuse(data) == refuse(data, "client_view") == "parameters_insecure"


def test_a_bomb_is_not_inflated() -> None:
    """A megabyte that would inflate to a gigabyte, and a promise of 2^25 entries that is not kept."""
    bomb = zlib.compress(bytes(1 << 28), 9)
    tracemalloc.start()
    try:
        assert refuse(forge(client=client_with(layouts=bomb)), "client_view") == "artefact_invalid"
        assert refuse(forge(client=client_with(bounds=bomb)), "client_view") == "artefact_invalid"
        much = {**PACKED, "entries": 1 << 25}
        assert refuse(forge(client=client_with(inputs=[much])), "client_view") == "artefact_invalid"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


# --- weights --------------------------------------------------------------------------------------------------------

N4, N8 = 4 * SLOTS, 8 * SLOTS
ENTRY_8 = {"dtype": "F64", "shape": [1, SLOTS], "data_offsets": [0, N8]}
ENTRY_4 = {"dtype": "F32", "shape": [1, SLOTS], "data_offsets": [N8, N8 + N4]}
RIGHT = {"w00001": ENTRY_8, "w00000": ENTRY_4}
BODY = bytes(N8 + N4)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"w00000": ENTRY_4, "w00001": ENTRY_8}, BODY),
        ({"w00001": ENTRY_8}, BODY[:N8]),
        ({**RIGHT, "w00002": {"dtype": "F32", "shape": [], "data_offsets": [N8 + N4, N8 + N4 + 4]}}, BODY + bytes(4)),
        ({"w00001": ENTRY_8, "../w": ENTRY_4}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "dtype": "I32"}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "dtype": "F16"}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "dtype": "F64"}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "shape": [SLOTS, 1]}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "shape": [SLOTS]}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "shape": [1 << 40, 1 << 40]}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "shape": [-1, -SLOTS]}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "data_offsets": [0, N4]}}, BODY),
        ({**RIGHT, "w00000": {**ENTRY_4, "data_offsets": [1 << 60, 1 << 61]}}, BODY),
        ({**RIGHT, "__metadata__": {"a": "b"}}, BODY),
        (RIGHT, BODY[:-1]),
        (RIGHT, BODY + b"\0"),
        (b"[]", BODY),
        (b"{" * 5000, BODY),
        (b'{"w00001":' * 5000, BODY),
        (compact(RIGHT)[:-1] + b',"w00000":' + compact(ENTRY_4) + b"}", BODY),
        (compact(RIGHT) + b" " * 8, BODY),
        (RIGHT, bytes(N8) + struct.pack("<f", float("nan")) + bytes(N4 - 4)),
        (RIGHT, struct.pack("<d", float("inf")) + bytes(N8 + N4 - 8)),
    ],
)
def test_weights_that_do_not_fit(header: object, body: bytes) -> None:
    assert refuse(forge(weights=tensors_with(header, body))) == "artefact_invalid"


def test_the_weights_above_are_right_but_for_the_one_change() -> None:
    assert not artefact.load(forge(weights=tensors_with(RIGHT, BODY))).weights[0].any()


@pytest.mark.parametrize("raw", [b"1", struct.pack("<Q", 1 << 63) + b"{}", struct.pack("<Q", 9) + b"{}"])
def test_weights_without_a_header(raw: bytes) -> None:
    assert refuse(forge(weights=raw)) == "artefact_invalid"


# --- program, report, file ------------------------------------------------------------------------------------------


def test_a_program_of_another_client() -> None:
    fields = msgspec.msgpack.decode(sections()["program"])
    fields["instructions"][1]["steps"] = 2
    assert refuse(forge(program=msgspec.msgpack.encode(fields))) == "artefact_invalid"


@pytest.mark.parametrize("raw", [b"\x80", b"\xc1", b"\x81" * 9000, b"cos\nsystem\n(S'true'\ntR.", b"x"])
def test_programs_and_reports_that_are_none(raw: bytes) -> None:
    for name in ("program", "report"):
        assert refuse(forge(**{name: raw})) == "artefact_invalid"


def test_a_report_about_another_model() -> None:
    report = {**json.loads(sections()["report"]), "model": "other"}
    assert refuse(forge(report=compact(report))) == "artefact_invalid"
    assert refuse(forge(report=json.dumps(report).encode())) == "artefact_invalid"


def test_what_is_not_an_ordinary_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", tmp_path / "empty", "/dev/zero", "a\0b"):
        with pytest.raises(LatticeError) as caught:
            artefact.load(path)
        assert caught.value.code == "artefact_invalid"


def test_loading_imports_nothing_that_the_file_names() -> None:
    """A whole load, with every import that happens during it listed."""
    script = (
        "import sys; from lattice.fhe import artefact; from tests.hostile.test_artefacts import valid; data = valid()\n"
        "artefact.load(data); before = set(sys.modules); artefact.load(data); print(set(sys.modules) - before)\n"
        "print([n for n in ('pickle', 'torch', 'onnx') if n in vars(artefact)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set()", "[]"]


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(NAMES), st.data())
def test_mutations_never_crash(name: str, data: st.DataObject) -> None:
    raw = bytearray(sections()[name])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 600)))
        raw[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(min_size=0, max_size=9))
    attempt(forge(**{name: bytes(raw)}))


@given(st.binary(max_size=300))
def test_noise_never_crashes(raw: bytes) -> None:
    attempt(raw)
    attempt(forge(head=raw))


FUZZER = """
import sys, atheris
with atheris.instrument_imports(include=["lattice.fhe.artefact", "lattice.fhe.hal.program", "lattice.fhe.compiler"]):
    from tests.hostile.test_artefacts import NAMES, attempt, forge, sections
def one(data):
    if not data:
        return
    name = NAMES[data[0] % 4]
    attempt(data[1:])
    attempt(forge(**{name: bytes(data[1:])}))
    raw = bytearray(sections()[name])
    at = 1
    while at + 2 < len(data):
        raw[(data[at] << 8 | data[at + 1]) % min(len(raw), 900)] = data[at + 2]
        at += 3
    attempt(forge(**{name: bytes(raw)}))
atheris.Setup([sys.argv[0], "-max_total_time=20", "-rss_limit_mb=2048", "-timeout=10"], one)
atheris.Fuzz()
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_fuzzer_finds_nothing() -> None:
    """Twenty seconds of libFuzzer over every section under right hashes; without atheris, random mutations."""
    import importlib.util

    if importlib.util.find_spec("atheris") is None:
        rng = random.Random(0)
        for _ in range(2000):
            name = rng.choice(NAMES)
            raw = bytearray(sections()[name])
            for _ in range(rng.randrange(1, 9)):
                raw[rng.randrange(min(len(raw), 900))] = rng.randrange(256)
            attempt(forge(**{name: bytes(raw)}))
        return
    done = subprocess.run([sys.executable, "-c", FUZZER], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "runs in" in done.stderr
