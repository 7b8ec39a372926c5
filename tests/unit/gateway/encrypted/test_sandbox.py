"""The child process: what it may use is bounded, and what it says is all that comes out."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.sandbox import OWNED, Limits, Task, remove_orphans, run_child, scratch
from tests.support.platform import artefact_bytes

MIB = 1024 * 1024


def task(folder: Path, data: bytes, **changes: object) -> Task:
    source = folder / "source"
    source.write_bytes(data)
    limits: dict[str, object] = {"memory_bytes": 2048 * MIB, "seconds": 60.0, "file_bytes": 64 * MIB}
    kind = str(changes.pop("kind", "artefact"))
    return Task(kind=kind, source=str(source), out=str(folder), limits=Limits(**limits | changes))  # type: ignore[arg-type]


async def test_an_artefact_is_described(tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    facts = await run_child(task(tmp_path, artefact_bytes()), lambda stage, part: steps.append((stage, part)))
    assert (facts["name"], facts["report"]["model"]) == ("tiny", "tiny")
    assert facts["keys_id"].startswith("ksp_")
    assert steps == [("check", 0.0), ("check", 1.0)]
    assert (tmp_path / "client").stat().st_size < len(artefact_bytes())


@pytest.mark.parametrize(
    ("data", "changes", "code"),
    [
        (b"not a model", {}, "artefact_invalid"),
        (b"", {}, "artefact_invalid"),
        (artefact_bytes()[:5000], {}, "artefact_invalid"),
        (artefact_bytes(), {"seconds": 0.05}, "compilation_failed"),
        (artefact_bytes(), {"memory_bytes": 64 * MIB}, "compilation_failed"),
        (artefact_bytes(), {"file_bytes": 10}, "compilation_failed"),
        (b"not onnx", {"kind": "onnx"}, "calibration_invalid"),
    ],
)
async def test_what_is_wrong_is_a_typed_error(
    tmp_path: Path, data: bytes, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(LatticeError) as caught:
        await run_child(task(tmp_path, data, **changes))
    assert caught.value.code == code
    assert str(tmp_path) not in caught.value.message


async def test_a_child_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    """Cancelled (as at the gateway's end) it is killed, not left behind."""
    running = asyncio.create_task(run_child(task(tmp_path, artefact_bytes())))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    for child in children:
        assert b"encrypted.child" not in Path(f"/proc/{child}/cmdline").read_bytes()


async def test_a_scratch_folder_is_gone_afterwards(tmp_path: Path) -> None:
    async with scratch(tmp_path / "work") as folder:
        (folder / "x").write_bytes(b"x")
    assert list((tmp_path / "work").iterdir()) == []


async def test_what_a_crash_left_is_removed_unless_a_child_still_works_in_it(tmp_path: Path) -> None:
    """A gateway that was killed leaves folders; its children may live a moment longer than it does."""
    for name in ("crashed", "orphan", "ancient", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "artefact").write_bytes(b"x")
    (tmp_path / "crashed" / OWNED).touch()
    os.utime(tmp_path / "ancient", (0, 0))
    held = os.open(tmp_path / "orphan" / OWNED, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(held,))
    os.close(held)
    async with scratch(tmp_path) as mine:
        assert remove_orphans(tmp_path) == 2
        assert {each.name for each in tmp_path.iterdir()} == {"orphan", "new", mine.name}
    child.communicate(b"\n")
    assert remove_orphans(tmp_path) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["new"]
    assert remove_orphans(tmp_path / "nowhere") == 0
