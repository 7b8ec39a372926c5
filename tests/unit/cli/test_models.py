"""`lattice models`: from an ONNX file and data to a signed file, a report, a picture, and encrypted predictions."""

from __future__ import annotations

import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lattice.cli.main import app
from lattice.cli.model_data import read_data
from lattice.core.errors import LatticeError

FEATURES, HIDDEN, CLASSES = 16, 8, 3
Result = tuple[int, str, str]


class Cli:
    """Runs a command in this process and returns exit code, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str) -> Result:
        code = 0
        try:
            app(["models", *words], result_action="return_value")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *words: str) -> Any:
        code, out, err = self(*words, "--json")
        assert code == 0, (out, err)
        return json.loads(out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def write_onnx(path: Path, *, last: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Dense, square, dense (and `last`); the two matrices."""
    rng = np.random.default_rng(4)
    first, second = (rng.normal(size=s).astype(np.float32) / 4 for s in ((HIDDEN, FEATURES), (CLASSES, HIDDEN)))
    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["h"], name="dense1", transB=1),
        helper.make_node("Mul", ["h", "h"], ["s"], name="square"),
        helper.make_node("Gemm", ["s", "second"], ["scores"], name="dense2", transB=1),
    ]
    if last:
        nodes.append(helper.make_node(last, ["scores"], ["out"], name="last"))
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n", CLASSES])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", FEATURES])
    weights = [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")]
    graph = helper.make_graph(nodes, "tiny", [given], [output], weights)
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return first, second


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data with true labels, and the compiled file, signed."""
    folder = tmp_path_factory.mktemp("models")
    first, second = write_onnx(folder / "tiny.onnx")
    write_onnx(folder / "bad.onnx", last="Erf2")
    samples = np.random.default_rng(5).uniform(-1, 1, (200, FEATURES))
    np.savez(folder / "data.npz", x=samples, y=((samples @ first.T) ** 2 @ second.T).argmax(axis=1))
    for words in (
        ["key", str(folder / "publisher.pem")],
        [
            *["compile", str(folder / "tiny.onnx"), "--calibration", str(folder / "data.npz"), "--try", "4"],
            *["--out", str(folder / "tiny.lattice"), "--sign", str(folder / "publisher.pem"), "--json"],
        ],
    ):
        app(["models", *words], result_action="return_value")
    return folder


def test_check_says_yes_with_the_operators(cli: Cli, folder: Path) -> None:
    found = cli.json("check", str(folder / "tiny.onnx"))
    assert found["supported"] is True
    assert (found["features"], found["results"], found["depth"]) == ([FEATURES], CLASSES, 3)
    assert {entry["name"]: entry["count"] for entry in found["operators"]} == {"Gemm": 2, "Mul": 1}
    code, out, _ = cli("check", str(folder / "tiny.onnx"))
    assert code == 0
    assert "can run encrypted" in out


def test_check_says_no_with_what_stands_in_the_way(cli: Cli, folder: Path) -> None:
    code, out, _ = cli("check", str(folder / "bad.onnx"), "--json")
    assert code == 1
    found = json.loads(out)
    assert [entry["operator"] for entry in found["unsupported"]] == ["Erf2"]
    code, out, _ = cli("check", str(folder / "bad.onnx"))
    assert code == 1
    assert "Erf2" in out
    code, _, err = cli("check", str(folder / "absent.onnx"))
    assert code != 0
    assert "Traceback" not in err


def test_the_report_is_of_the_file(cli: Cli, folder: Path, tmp_path: Path) -> None:
    found = cli.json("report", str(folder / "tiny.lattice"), "--svg", str(tmp_path / "tiny.svg"))
    report = found["report"]
    assert report["parameters"]["security_bits"] == 128
    assert report["accuracy"]["encrypted"] == 1.0
    assert report["accuracy"]["encrypted_samples"] == 4
    assert report["totals"]["measured_ms"] > 0
    assert len(report["layers"]) >= 3
    assert found["sizes"]["weights"] > 0
    ElementTree.parse(tmp_path / "tiny.svg")
    _, out, _ = cli("report", str(folder / "tiny.lattice"))
    assert "accuracy" in out
    assert found["publisher"] in out


def test_simulating_and_running_give_the_labels(cli: Cli, folder: Path) -> None:
    data = str(folder / "data.npz")
    found = cli.json("simulate", str(folder / "tiny.lattice"), "--data", data)
    assert (found["samples"], found["agreement"]) == (200, found["accuracy"])
    assert found["accuracy"] > 0.99
    assert 0 < found["max_error"] < 1e-2
    ran = cli.json("run", str(folder / "tiny.lattice"), "--data", data, "--count", "5")
    assert ran["encrypted"] == ran["clear"] == ran["truth"]
    assert set(ran["milliseconds"]) == {"keys", "prepare", "encrypt", "evaluate", "decrypt"}
    code, out, _ = cli("run", str(folder / "tiny.lattice"), "--data", data, "--count", "3")
    assert code == 0
    assert "100.00% encrypted, 100.00% in the clear, 3 samples" in out


def test_a_publisher_is_trusted_or_not(cli: Cli, folder: Path, tmp_path: Path) -> None:
    mine = cli.json("key", str(folder / "publisher.pem"))
    other = cli.json("key", str(tmp_path / "other.pem"))
    assert (mine["made"], other["made"]) == (False, True)
    assert stat.S_IMODE((tmp_path / "other.pem").stat().st_mode) == 0o600
    file = str(folder / "tiny.lattice")
    assert cli.json("report", file, "--trust", mine["publisher"])["publisher"] == mine["publisher"]
    assert cli("report", file, "--trust", other["publisher"])[0] == 6
    assert cli("run", file, "--data", str(folder / "data.npz"), "--trust", other["publisher"])[0] == 6
    assert cli("report", file, "--trust", "nonsense")[0] == 2


def test_samples_outside_the_range_are_told_of_or_refused(cli: Cli, folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "far.npy", np.full((2, FEATURES), 3.0))
    words = ["run", str(folder / "tiny.lattice"), "--data", str(tmp_path / "far.npy")]
    assert any("outside the calibrated range" in warning for warning in cli.json(*words)["warnings"])
    code, _, err = cli(*words, "--strict")
    assert code != 0
    assert "input_invalid" in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["compile", "tiny.onnx", "--calibration", "absent.npz"], "calibration_invalid"),
        (["compile", "tiny.onnx", "--calibration", "tiny.onnx"], "calibration_invalid"),
        (["compile", "data.npz", "--calibration", "data.npz"], "model_invalid"),
        (["compile", "tiny.onnx", "--calibration", "data.npz", "--sign", "data.npz"], "invalid_request"),
        (["compile", "tiny.onnx", "--calibration", "data.npz", "--classes", "a"], "invalid_request"),
        (["compile", "tiny.onnx", "--calibration", "narrow.npy"], "calibration_invalid"),
        (["report", "tiny.onnx"], "artefact_invalid"),
        (["report", "absent.lattice"], "artefact_invalid"),
        (["run", "tiny.lattice", "--data", "narrow.npy"], "input_invalid"),
        (["report", "tiny.lattice", "--svg", "/nowhere/at/all.svg"], "invalid_request"),
    ],
)
def test_mistakes_are_explained(
    cli: Cli, folder: Path, words: list[str], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(folder / "narrow.npy", np.zeros((4, 3)))
    monkeypatch.chdir(folder)
    status, out, _ = cli(*words, "--json")
    assert status != 0
    assert json.loads(out)["error"] == code


# --- data files -----------------------------------------------------------------------------------------------------


def test_csv_with_a_column_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,kind,b\n1,x,2\n3.5,y,-4e-1\n")
    found = read_data(str(path), "kind")
    assert found.samples.tolist() == [[1, 2], [3.5, -0.4]]
    assert found.labels is not None
    assert found.labels.tolist() == ["x", "y"]


def test_csv_without_header_and_labels_apart(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1,2\n3,4\n")
    (tmp_path / "labels.csv").write_text("0\n1\n")
    found = read_data(str(tmp_path / "data.csv"), str(tmp_path / "labels.csv"))
    assert found.samples.shape == (2, 2)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]


def test_npz_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)), mine=np.arange(3))
    assert read_data(str(tmp_path / "data.npz"), None).labels is None
    assert read_data(str(tmp_path / "data.npz"), "mine").labels is not None


class Trap:
    """Unpickling it makes a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["TRAP"],)


def test_data_files_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    objects = np.array([Trap()], dtype=object)
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, objects, allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    np.savez(tmp_path / "c.npz", x=objects)
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 no archive")
    for name in ("a.npy", "b.npy", "c.npz", "d.npz"):
        with pytest.raises(LatticeError):
            read_data(str(tmp_path / name), None)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("text", "labels"),
    [("", None), ("a,b\n", None), ("1,2\n3\n", None), ("a,b\n1,z\n", None), ("a,b\n1,2\n", "c"), ("1,2\n", "a")],
)
def test_csv_that_makes_no_sense(tmp_path: Path, text: str, labels: str | None) -> None:
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(LatticeError) as caught:
        read_data(str(tmp_path / "data.csv"), labels)
    assert caught.value.code == "input_invalid"
