"""The child process that looks into uploads: `python -m lattice.gateway.encrypted.child`, a task on standard input.

It bounds itself before it reads a byte of the upload, imports nothing of the gateway but what describes the task, and
ends as soon as its parent does.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.sandbox import Limits, Result, Step, Task

MAX_MESSAGE = 500
OPTIONS = frozenset(
    {"tolerance", "precision", "goal", "max_key_bytes", "batch", "margin", "scale_bits", "log_n", "allow_inaccurate"}
)
"""What an uploaded model may ask for: never for less security."""


def main() -> None:
    """Do one task."""
    line = sys.stdin.buffer.readline()
    task = msgspec.json.decode(line, type=Task)
    _limit(task.limits)
    tell = _teller()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = Result(facts=TASKS[task.kind](task, tell))
    except LatticeError as error:
        result = Result(code=error.code, message=error.message[:MAX_MESSAGE])
    except ImportError as error:
        missing = f"The gateway's machine lacks {error.name}: install the extras `encrypted` and `convert`."
        result = Result(code="compilation_failed", message=missing)
    except MemoryError:
        most = task.limits.memory_bytes >> 20
        result = Result(code="compilation_failed", message=f"It needs more than {most} MiB of memory.")
    except Exception as error:  # what a library makes of hostile bytes; its text is not ours to show
        result = Result(code="compilation_failed", message=f"It failed unexpectedly ({type(error).__name__}).")
    unfinished = Path(task.out) / "result.unfinished"
    unfinished.write_bytes(msgspec.json.encode(result))
    unfinished.rename(Path(task.out) / "result.json")


def _limit(limits: Limits) -> None:
    seconds = max(1, int(limits.seconds * max(1, limits.threads)))
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_NOFILE, 64),
    ):
        hard = resource.getrlimit(name)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, most))


def _teller() -> Callable[[str, float], None]:
    """Standard output is for steps alone; what a library prints goes nowhere."""
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def tell(stage: str, part: float) -> None:
        out.write(msgspec.json.encode(Step(stage, part)) + b"\n")

    return tell


def _end_with_parent() -> None:
    """The parent never writes again: the pipe ends when the parent does, however it died."""
    os.read(0, 1)
    os._exit(1)


def compile_onnx(task: Task, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """Compile an ONNX file with calibration samples into an artefact, then describe it."""
    from lattice.fhe import artefact
    from lattice.fhe.compiler.compile import compile as compile_model
    from lattice.fhe.compiler.levels.options import Options

    samples, labels = _calibration(task.calibration)
    unknown = sorted(set(task.options) - OPTIONS)
    if unknown:
        raise LatticeError("invalid_parameters", f"There is no option {unknown[0][:50]}.")
    try:
        options = msgspec.convert(task.options, Options)
    except msgspec.ValidationError as error:
        raise LatticeError("invalid_parameters", f"The options are not valid: {error}.") from None
    compiled = compile_model(Path(task.source), samples, labels=labels, options=options, progress=tell)
    made = Path(task.out) / "artefact"
    artefact.save(compiled, made)
    return _describe(made, task, tell) | {"artefact": str(made)}


def check_artefact(task: Task, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """Check a compiled model as a worker will, and describe it."""
    return _describe(Path(task.source), task, tell)


def check_keys(task: Task, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """Check that a bundle holds a public key and exactly the evaluation keys that a model's client part names."""
    from lattice.fhe.artefact import client_view
    from lattice.gateway.encrypted.key_check import check_key_file

    assert task.client is not None
    tell("check keys", 0.0)
    return check_key_file(Path(task.source), client_view(task.client))


def _describe(path: Path, task: Task, tell: Callable[[str, float], None]) -> dict[str, Any]:
    from lattice.fhe import artefact

    tell("check", 0.0)
    found = artefact.inspect(path)
    if not found.whole:
        raise LatticeError("artefact_invalid", "The file is a client's part; the whole artefact is needed.")
    compiled = artefact.load(path)
    (Path(task.out) / "client").write_bytes(artefact.client_bytes(path))
    view = artefact.client_view(path)
    tell("check", 1.0)
    return {
        "name": found.name,
        "program_id": view.program_id,
        "parameters_id": view.params.id,
        "keys_id": view.keys_id,
        "interface": view.interface.hex(),
        "key_bytes": view.key_bytes,
        "report": compiled.report,
    }


def _calibration(path: str | None) -> tuple[Any, Any]:
    """Samples from `.npy`, or `samples` and perhaps `labels` from `.npz`; never pickled objects."""
    import numpy as np

    if path is None:
        raise LatticeError("calibration_invalid", "An ONNX model needs calibration samples.")
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found, None
        return found["samples"], found["labels"] if "labels" in found.files else None
    except (OSError, ValueError, KeyError, EOFError):
        raise LatticeError("calibration_invalid", "Calibration is an .npy file, or .npz with `samples`.") from None


TASKS: dict[str, Callable[[Task, Callable[[str, float], None]], dict[str, Any]]] = {
    "onnx": compile_onnx,
    "artefact": check_artefact,
    "keys": check_keys,
}

if __name__ == "__main__":
    main()
