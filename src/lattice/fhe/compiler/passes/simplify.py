"""All exact passes, until nothing changes."""

from __future__ import annotations

from dataclasses import replace

from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.passes.commute import commute
from lattice.fhe.compiler.passes.merge import merge
from lattice.fhe.compiler.passes.recognise import recognise
from lattice.fhe.compiler.passes.sink import sink
from lattice.fhe.compiler.passes.validate import validate

ROUNDS = 20


def simplify(model: Imported, *, client_sigmoid: bool = True) -> Imported:
    """The same model with fewer layers; `client_sigmoid=False` keeps a last sigmoid under encryption."""
    validate(model.graph)
    if client_sigmoid:
        model = sink(model)
    graph = model.graph
    for _ in range(ROUNDS):
        changes = []
        for step in (recognise, merge, commute):
            graph, changed = step(graph)
            changes.append(changed)
        if not any(changes):
            break
    return replace(model, graph=validate(graph))
