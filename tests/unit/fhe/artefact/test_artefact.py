"""The artefact: what is saved is what is loaded, sections stand alone, and signatures say who published it."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe import artefact
from lattice.fhe.artefact import tensors
from lattice.fhe.artefact.files import read_file_report
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.report_data import Report, read_report
from lattice.fhe.serialise.keys import encode_evaluation_keys
from lattice.sealing.identity import IdentityKey
from tests.support.compiled import compiled
from tests.support.encrypted import Client

MODEL = compiled()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    artefact.save(MODEL, tmp_path / "tiny.lattice")
    return tmp_path / "tiny.lattice"


def refused(code: str, *arguments: object, **named: object) -> str:
    with pytest.raises(LatticeError) as caught:
        artefact.load(*arguments, **named)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value.message


def same(one: Compiled, other: Compiled) -> bool:
    """In everything that a run depends on, and the report."""
    pairs = zip(one.weights, other.weights, strict=True)
    layouts = zip((*one.client.inputs, *one.client.outputs), (*other.client.inputs, *other.client.outputs), strict=True)
    return (
        one.program == other.program
        and all(np.array_equal(a, b) for a, b in pairs)
        and all(np.array_equal(a.entries, b.entries) and a.scale == b.scale for a, b in layouts)
        and (one.client.before, one.client.after) == (other.client.before, other.client.after)
        and np.array_equal(one.client.low, other.client.low)
        and one.report == other.report
    )


def test_what_is_saved_is_loaded(path: Path) -> None:
    assert same(artefact.load(path), MODEL)
    assert same(artefact.load(path.read_bytes()), MODEL)
    assert read_file_report(path) == read_report(MODEL.report)


def test_equal_models_have_equal_bytes(path: Path, tmp_path: Path) -> None:
    artefact.save(artefact.load(path), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_weights_take_32_bits_where_that_loses_nothing(path: Path) -> None:
    assert [weight.dtype.itemsize for weight in artefact.load(path).weights] == [4, 8]
    huge = replace(MODEL, weights=(np.full((1, 2048), 1e300), MODEL.weights[1]))
    artefact.save(huge, path)
    assert artefact.load(path).weights[0][0, 0] == 1e300


def test_loaded_weights_cannot_be_written_to(path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        artefact.load(path).weights[0][0, 0] = 0


def test_the_weights_are_a_safetensors_file(path: Path) -> None:
    """The reviewed library is the oracle: it reads our section and writes the same bytes."""
    library = pytest.importorskip("safetensors.numpy")
    found = artefact.inspect(path)
    section = path.read_bytes()[-found.sizes["weights"] :]
    names = ["w00000", "w00001"]
    read = library.load(section)
    assert sorted(read) == names
    assert all(np.array_equal(read[name], weight) for name, weight in zip(names, MODEL.weights, strict=True))
    assert library.save(dict(zip(names, MODEL.weights, strict=True))) == section


def test_a_client_gets_the_beginning_of_the_file(path: Path) -> None:
    whole = path.read_bytes()
    sent = artefact.client_bytes(path)
    assert whole.startswith(sent)
    assert len(sent) < 4096
    view = artefact.client_view(sent)
    assert view.keys == MODEL.keys
    assert (view.params.id, view.program_id) == (MODEL.program.params.id, MODEL.program.id)
    assert view.name == "tiny"
    assert np.array_equal(view.client.outputs[0].entries, MODEL.client.outputs[0].entries)
    assert artefact.client_view(path).artefact_id == view.artefact_id == artefact.inspect(path).artefact_id
    assert "no section" in refused("artefact_invalid", sent)
    assert artefact.inspect(sent).whole is False


def test_the_client_need_not_read_the_weights(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert artefact.client_view(path).program_id == MODEL.program.id
    assert "weights" in refused("artefact_invalid", path)


def test_key_bytes_are_predicted(path: Path) -> None:
    view = artefact.client_view(path)
    keys = encode_evaluation_keys(Client.make(view.params, view.keys).keys)
    assert 0 < len(keys) - view.key_bytes < 200


def test_new_weights_keep_program_and_keys(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    artefact.save(compiled(seed=1), other)
    one, two = artefact.inspect(path), artefact.inspect(other)
    assert one.program_id == two.program_id == MODEL.program.id
    assert one.weights_hash != two.weights_hash
    assert one.content_hash != two.content_hash
    assert artefact.client_view(path).keys_id == artefact.client_view(other).keys_id


def test_a_signature_names_the_publisher(path: Path) -> None:
    key, stranger = IdentityKey.generate(), IdentityKey.generate()
    saved = artefact.save(MODEL, path, key)
    assert saved == artefact.inspect(path)
    assert saved.publisher == key.public.raw
    trusted = {key.public.raw}
    assert same(artefact.load(path, trust=trusted), MODEL)
    assert artefact.client_view(artefact.client_bytes(path), trust=trusted).publisher == key.public.raw
    assert "not by a publisher" in refused("artefact_untrusted", path, trust={stranger.public.raw})
    refused("artefact_untrusted", path, trust=set())


def test_unsigned_files_say_so(path: Path) -> None:
    assert artefact.inspect(path).publisher is None
    assert "not signed" in refused("artefact_untrusted", path, trust={IdentityKey.generate().public.raw})


def test_a_signature_does_not_move_to_another_model(path: Path, tmp_path: Path) -> None:
    """The seal of one file in front of another's sections, with the header's own checksum right."""
    artefact.save(MODEL, path, IdentityKey.generate())
    artefact.save(compiled(seed=1), tmp_path / "other")
    signed, other = path.read_bytes(), (tmp_path / "other").read_bytes()
    header = 16 + int.from_bytes(other[12:16], "little")
    at = 16 + int.from_bytes(signed[12:16], "little") + 32
    moved = other[: header + 32] + signed[at : at + 96] + other[header + 128 :]
    assert "does not verify" in refused("artefact_untrusted", moved)


def test_saving_is_private_and_leaves_nothing_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(LatticeError, match="No space left"):
        artefact.save(compiled(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": MODEL.weights[:1]}, "shapes"),
        ({"weights": (MODEL.weights[0][:, :8], MODEL.weights[1])}, "shapes"),
        ({"weights": (MODEL.weights[0] * np.nan, MODEL.weights[1])}, "not finite"),
        ({"client": replace(MODEL.client, results=4)}, "no output slot"),
        ({"client": replace(MODEL.client, inputs=())}, "not those of the program"),
        ({"report": {**MODEL.report, "unknown": 1}}, "report is malformed"),
        ({"report": {**MODEL.report, "slots": "many"}}, "report is malformed"),
        ({"report": {**MODEL.report, "model": "esc\x1b[31m"}}, "not printable"),
        ({"report": {**MODEL.report, "totals": {"time_ms": float("nan")}}}, "report is malformed|not finite"),
    ],
)
def test_what_would_not_load_is_not_saved(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(LatticeError, match=message) as caught:
        artefact.save(replace(MODEL, **change), tmp_path / "never")  # type: ignore[arg-type]
    assert caught.value.code == "artefact_invalid"
    assert not os.listdir(tmp_path)


def test_reports_survive_json() -> None:
    report = read_report(MODEL.report)
    assert read_report(json.loads(json.dumps(report.to_dict()))) == report
    assert Report().accuracy is None


def test_pieces_are_not_copies() -> None:
    tensor = tensors.narrowed(np.ones((2, 3)), "x")
    header, body = tensors.pieces([tensor])
    assert isinstance(body, memoryview)
    assert np.shares_memory(np.frombuffer(body, np.uint8), tensor)
    assert len(header) % 8 == 0
