"""The allow-list."""

from __future__ import annotations

from pathlib import Path

import pytest

from lattice.core.errors import LatticeError
from lattice.runtime.allow import AllowList
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


def test_nobody_is_allowed_at_first(state: StateDir) -> None:
    assert not AllowList(state).allows(IdentityKey.generate().public)


def test_a_change_by_another_process_is_seen_at_once(state: StateDir) -> None:
    running, command = AllowList(state), AllowList(state)
    app = IdentityKey.generate().public
    assert not running.allows(app)
    command.add(app.text, "app", "app", 1)
    assert running.allows(app)
    command.remove("app")
    assert not running.allows(app)


def test_entries_are_named_by_label_key_or_its_beginning(state: StateDir) -> None:
    allow = AllowList(state)
    keys = [IdentityKey.generate().public.text for _ in range(3)]
    for index, key in enumerate(keys):
        allow.add(key, f"app {index}", "app", index)
    assert allow.remove("app 0")[0].key == keys[0]
    assert allow.remove(keys[1])[0].key == keys[1]
    with pytest.raises(LatticeError, match="No allowed sender"):
        allow.remove(keys[2][:7])
    assert allow.remove(keys[2][:8])[0].key == keys[2]


def test_an_ambiguous_name_removes_nothing(state: StateDir) -> None:
    allow = AllowList(state)
    for _ in range(2):
        allow.add(IdentityKey.generate().public.text, "same", "app", 1)
    with pytest.raises(LatticeError, match="More than one"):
        allow.remove("same")
    assert len(allow.entries()) == 2


@pytest.mark.parametrize("key", ["", "short", "A" * 43, "!" * 43])
def test_what_is_no_key_is_refused(state: StateDir, key: str) -> None:
    with pytest.raises(LatticeError) as caught:
        AllowList(state).add(key, "x", "app", 1)
    assert caught.value.code == "invalid_request"


def test_a_machine_has_one_gateway(state: StateDir) -> None:
    allow = AllowList(state)
    app, old, new = (IdentityKey.generate().public.text for _ in range(3))
    allow.add(app, "app", "app", 1)
    allow.replace_gateway(old, "old", 1)
    allow.replace_gateway(new, "new", 2)
    assert [(e.key, e.kind) for e in allow.entries()] == [(app, "app"), (new, "gateway")]
