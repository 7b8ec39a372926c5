"""Runs `child` on what strangers uploaded: its own process, little memory, little time, and a bare environment."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from lattice.core.errors import LatticeError, catalogue

OWNED = ".owned"
"""The file in a scratch folder that its owners, this process and the child, hold locked."""
FRESH_SECONDS = 60.0
MAX_RESULT = 16 * 1024 * 1024
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
"""No setting, no credential, no home folder: a child has nothing to tell."""

Progress = Callable[[str, float], None]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a child may use."""

    memory_bytes: int
    seconds: float
    file_bytes: int
    threads: int = 1


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One line on the child's standard input."""

    kind: str
    source: str
    out: str
    limits: Limits
    calibration: str | None = None
    options: dict[str, Any] = {}
    client: str | None = None


class Step(msgspec.Struct, frozen=True):
    """One line of the child's standard output: a stage of the work, and 0.0 where it begins, 1.0 where it ends."""

    stage: str
    part: float


class Result(msgspec.Struct, frozen=True):
    """The file `result.json` that the child leaves: facts, or an error of the catalogue."""

    facts: dict[str, Any] | None = None
    code: str | None = None
    message: str | None = None


@asynccontextmanager
async def scratch(folder: Path) -> AsyncIterator[Path]:
    """A folder for one child, gone afterwards; or at the next start, where this process does not get that far."""
    made, held = await asyncio.to_thread(_scratch, folder)
    try:
        yield made
    finally:
        await asyncio.to_thread(shutil.rmtree, made, True)
        os.close(held)


def remove_orphans(folder: Path) -> int:
    """Delete what an earlier process left, but nothing that a child of it still works in; how many there were."""
    gone = 0
    for left in folder.iterdir() if folder.is_dir() else ():
        if _owned(left):
            continue
        shutil.rmtree(left, ignore_errors=True)
        gone += 1
    return gone


async def run_child(task: Task, progress: Progress | None = None) -> dict[str, Any]:
    """The facts that the child found. Its errors are raised here; death and delay are `compilation_failed`."""
    held = _hold(Path(task.out))
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "lattice.gateway.encrypted.child",
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            cwd=task.out,
            env=_environment(task.limits),
            pass_fds=(held,),
        )
    finally:
        os.close(held)  # the child has it now, for as long as it lives
    try:
        async with asyncio.timeout(task.limits.seconds):
            await _talk(process, task, progress)
            await process.wait()
    except TimeoutError:
        raise LatticeError("compilation_failed", f"It took longer than {task.limits.seconds:g} seconds.") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return await asyncio.to_thread(_read_result, Path(task.out) / "result.json", process.returncode)


async def _talk(process: Process, task: Task, progress: Progress | None) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(msgspec.json.encode(task) + b"\n")  # left open: its end is how the child knows of ours
        await process.stdin.drain()
    async for line in process.stdout:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            step = msgspec.json.decode(line, type=Step)
            if progress is not None:
                progress(step.stage[:100], step.part)


def _read_result(path: Path, status: int | None) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_RESULT:
            raise LatticeError("compilation_failed", "Its description is too large.")
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError):
        how = "memory or processor time ran out" if status else "no result"
        raise LatticeError("compilation_failed", f"The process ended early ({how}).") from None
    if result.facts is None:
        code = result.code if result.code in catalogue() else "compilation_failed"
        raise LatticeError(str(code), result.message)
    return result.facts


def _scratch(folder: Path) -> tuple[Path, int]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Path(tempfile.mkdtemp(dir=folder))
    return made, _hold(made)


def _hold(folder: Path) -> int:
    """Share a lock that the kernel drops with its last owner; the descriptor has to be closed."""
    held = os.open(folder / OWNED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _owned(folder: Path) -> bool:
    try:
        held = os.open(folder / OWNED, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # just made and not locked yet, or of a version that had no locks
        return time.time() - folder.stat().st_mtime < FRESH_SECONDS
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False


def _environment(limits: Limits) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    threads = {f"{name}_NUM_THREADS": str(limits.threads) for name in ("OMP", "OPENBLAS", "MKL")}
    return kept | threads | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
