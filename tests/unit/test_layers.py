"""The dependency chain: lower packages never import higher ones. Each forbidden import is forbidden for a reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "lattice"

CHAIN = {
    "core": set(),
    "sealing": {"core"},
    "attestation": {"core"},
    "fhe": {"core"},
    "client": {"core", "sealing", "attestation", "fhe"},
    "runtime": {"core", "sealing", "attestation", "fhe", "client"},
    "gateway": {"core", "sealing", "attestation", "fhe", "client"},
    "cli": {"core", "sealing", "attestation", "fhe", "client", "runtime", "gateway"},
}

WHY = {
    ("runtime", "gateway"): "they meet only over HTTP, so that the owner of a machine installs no gateway",
    ("gateway", "runtime"): "they meet only over HTTP, so that a gateway never runs a model in its own process",
    ("client", "gateway"): "an app that uses the SDK must not install a web server and a database",
    ("client", "runtime"): "an app that uses the SDK must not install a daemon",
    ("sealing", "client"): "sealing is handed bytes and times; whoever reads files and sockets is above it",
}

PURE = {
    "core": {"os", "re"},
    "sealing": {"os"},
}
"""Layers that do no I/O, with the modules of the standard library's I/O side that they may name (`os.urandom`)."""

IO_MODULES = {
    "asyncio",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "pathlib",
    "tempfile",
    "shutil",
    "logging",
    "os",
}

THIRD_PARTY = {
    "core": {"msgspec", "pydantic"},
    "sealing": {"msgspec", "cryptography"},
    "fhe": {"msgspec", "cryptography", "numpy"},
    "client": {"msgspec", "cryptography", "httpx2", "openai"},
}

LAZY = {
    ("client", "keyring"): "only whoever keeps keys in the system's keyring needs it (extra `keyring`)",
    ("fhe", "onnx"): "only whoever converts a model needs it (extra `convert`)",
    ("fhe", "torch"): "only whoever converts a PyTorch module needs it (extra `torch`)",
}
"""Packages that a layer may import inside a function only, and why at all."""


def imports(path: Path, at_once: bool = False) -> set[str]:
    """Absolute names of everything that a module imports, lazily or not (or only what it imports at once)."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the chain"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "lattice"}
    return found


def modules() -> list[tuple[str, Path]]:
    return sorted((path.relative_to(SOURCE).parts[0], path) for path in SOURCE.glob("*/**/*.py"))


@pytest.mark.parametrize(("package", "path"), modules(), ids=lambda value: str(value).rpartition("lattice/")[2])
def test_imports_go_down_the_chain(package: str, path: Path) -> None:
    allowed = CHAIN[package] | {package}
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "lattice" and len(parts) > 1 and parts[1] in CHAIN:
            why = WHY.get((package, parts[1]), "the chain is core, sealing, client, then runtime or gateway, then cli")
            assert parts[1] in allowed, f"{path.name} imports {name}: forbidden, because {why}"


@pytest.mark.parametrize("package", sorted(PURE))
def test_pure_layers_do_no_io(package: str) -> None:
    for path in (SOURCE / package).rglob("*.py"):
        named = {name.partition(".")[0] for name in imports(path)}
        forbidden = named & (IO_MODULES - PURE[package])
        assert not forbidden, f"{path.name} imports {forbidden}: this layer is handed bytes, times and randomness"


@pytest.mark.parametrize("package", sorted(THIRD_PARTY))
def test_low_layers_stay_light(package: str) -> None:
    import sys

    for path in (SOURCE / package).rglob("*.py"):
        named = {name.partition(".")[0] for name in imports(path)} - {"lattice"}
        at_once = {name.partition(".")[0] for name in imports(path, at_once=True)}
        for name in [name for name in named if (package, name) in LAZY]:
            assert name not in at_once, f"{path.name} imports {name} at once: {LAZY[package, name]}"
            named.discard(name)
        foreign = named - set(sys.stdlib_module_names) - THIRD_PARTY[package]
        assert not foreign, f"{path.name} imports {foreign}: everybody who installs the SDK would pay for it"


def test_every_package_is_in_the_chain() -> None:
    present = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert present <= set(CHAIN), "a new package needs its place in the chain"
