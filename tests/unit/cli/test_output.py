"""Printing: one JSON value for machines, words with a remedy for people, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from lattice.cli.output import console, exit_code, reporting, show, table
from lattice.core.errors import LatticeError, catalogue


class Row(NamedTuple):
    name: str
    path: Path


def test_json_is_one_line_of_plain_values(capsys: pytest.CaptureFixture[str]) -> None:
    show({"rows": [Row("é", Path("/x"))]}, True, lambda _out: None)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"rows": [["é", "/x"]]}


def test_people_get_words(capsys: pytest.CaptureFixture[str]) -> None:
    show({"x": 1}, False, lambda out: out.print("one"))
    assert capsys.readouterr().out == "one\n"


def test_a_table_never_cuts_a_cell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    key = "k" * 60 + "[bold]"
    table(console(), ("label", "key"), [("a", key), ("longer label", "x")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"a             {key}"
    assert lines[2] == "longer label  x"


def test_an_error_is_words_remedy_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, reporting(False):
        raise LatticeError("daemon_not_running", "no [daemon] here")
    assert caught.value.code == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["daemon_not_running: no [daemon] here", "  `lattice-ctl daemon start`"]


def test_an_error_as_json_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, reporting(True):
        raise LatticeError("gateway_unreachable", "x")
    assert caught.value.code == 4
    assert json.loads(capsys.readouterr().out)["error"] == "gateway_unreachable"


def test_ctrl_c_is_130() -> None:
    with pytest.raises(SystemExit) as caught, reporting(False):
        raise KeyboardInterrupt
    assert caught.value.code == 130


def test_every_error_has_an_exit_code() -> None:
    codes = {code: exit_code(LatticeError(code)) for code in catalogue()}
    assert all(1 <= number <= 6 for number in codes.values())
    assert codes["invalid_credential"] == 5
    assert codes["model_digest_mismatch"] == 6
    assert codes["internal"] == 1
