"""A linear node, as packing sees it: a matrix, and the grids on which its tensors may lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lattice.fhe.compiler.packing.geometry import Grid
from lattice.fhe.compiler.packing.linear import Entries


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear node, as the candidates see it."""

    name: str
    entries: Entries
    slots: int
    grids: tuple[tuple[Grid | None, Grid | None], ...] = ()
    """Of the input and of the output, in each family."""

    @property
    def outputs(self) -> int:
        """How many outputs."""
        return self.entries.sparse.outputs

    @property
    def inputs(self) -> int:
        """How many inputs."""
        return self.entries.sparse.inputs

    @property
    def is_spatial(self) -> bool:
        """Whether the result is a picture of more than one pixel."""
        return any(target is not None and target.shape[1] * target.shape[2] > 1 for _, target in self.grids)

    @cached_property
    def is_entrywise(self) -> bool:
        """Whether every output depends on the input of its own number only."""
        sparse = self.entries.sparse
        return sparse.inputs == sparse.outputs and bool((sparse.rows == sparse.columns).all())
