"""The chain inside `lattice.fhe`: who may import whom, and why the evaluator's side never sees the secret's."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src" / "lattice" / "fhe"

CHAIN = {
    "ring": set(),
    "ckks": {"ring"},
    "hal": {"ring", "ckks"},
    "serialise": {"ring", "ckks"},
    "keys": {"ring", "ckks", "hal", "serialise"},
    "circuits": {"ring", "ckks", "hal"},
    "artefact": {"ring", "ckks", "hal", "serialise", "compiler"},
}
"""`circuits` is not above `keys`: an evaluator that could import key generation could be handed a secret.
`artefact` neither: whoever stores and checks models makes no keys."""


def packages(path: Path) -> set[str]:
    """The packages of `lattice.fhe` that a module imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names]
    return {p[2] for p in parts if p[:2] == ["lattice", "fhe"] and len(p) > 2 and p[2] in CHAIN}


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*/**/*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_the_chain(path: Path) -> None:
    package = path.relative_to(SOURCE).parts[0]
    if package in CHAIN:
        assert packages(path) <= CHAIN[package] | {package}
