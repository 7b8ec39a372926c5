"""The state directory: private, atomic, one daemon."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lattice.core.errors import LatticeError
from lattice.runtime.machine import Pairing, load_or_create_identity, load_pairing, save_pairing
from lattice.runtime.state import StateDir


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directory_and_files_are_private_whatever_the_umask(state: StateDir) -> None:
    old = os.umask(0)
    try:
        state.write_bytes("secret", b"x")
    finally:
        os.umask(old)
    assert mode(state.root) == 0o700
    assert mode(state.path("secret")) == 0o600


def test_a_loose_directory_is_tightened(state: StateDir) -> None:
    state.root.mkdir(mode=0o755)
    state.prepare()
    assert mode(state.root) == 0o700


def test_a_failed_write_leaves_the_old_content_and_no_scrap(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write("a", {"x": 1})

    def broken(*_args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        state.write("a", {"x": 2})
    assert state.read("a", dict[str, int]) == {"x": 1}
    assert os.listdir(state.root) == ["a"]


def test_a_damaged_file_is_reported_and_kept(state: StateDir) -> None:
    state.write_bytes("pairing.json", b"{")
    with pytest.raises(LatticeError, match="damaged"):
        load_pairing(state)
    assert state.read_bytes("pairing.json") == b"{"


def test_one_daemon_at_a_time(state: StateDir) -> None:
    assert not state.locked()
    with state.lock():
        assert state.locked()
        assert state.path("daemon.lock").read_text() == str(os.getpid())
        with pytest.raises(LatticeError) as caught, state.lock():
            pass
        assert caught.value.code == "daemon_already_running"
    assert not state.locked()


def test_the_identity_is_made_once(state: StateDir) -> None:
    first = load_or_create_identity(state)
    assert load_or_create_identity(state).public == first.public
    state.write_bytes("identity.key", b"short")
    with pytest.raises(LatticeError, match="damaged"):
        load_or_create_identity(state)


def test_a_pairing_survives_and_its_repr_hides_the_credential(state: StateDir) -> None:
    pairing = Pairing("lat_x", "http://g", "http://g", "rlc_canary", "key", 1, True)
    save_pairing(state, pairing)
    assert load_pairing(state) == pairing
    assert "canary" not in repr(pairing)
