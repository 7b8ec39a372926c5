"""What an importer makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lattice.fhe.compiler.client_part import After, Before
from lattice.fhe.compiler.graph import Graph, Shape


@dataclass(frozen=True, eq=False)
class Imported:
    """A model: the client's steps before, the graph that runs encrypted, the client's steps after."""

    graph: Graph
    before: tuple[Before, ...] = ()
    after: tuple[After, ...] = ()
    feature_shape: Shape = ()
    """Of one sample before `before`."""
    operators: Counter[str] = field(default_factory=Counter)
    """How often each operator of the model's own framework occurs, by the catalogue's name."""
