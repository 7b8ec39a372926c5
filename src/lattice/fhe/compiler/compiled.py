"""The compiler's result: what `artefact` writes to a file and `fhe.run` runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler.client_part import ClientPart
from lattice.fhe.hal.program import Program


@dataclass(frozen=True, eq=False)
class Compiled:
    """Program, weights as real numbers, the client's part, and what is known about it."""

    program: Program
    weights: tuple[NDArray[np.floating[Any]], ...]
    """For each of `program.weights` the values to encode: `[count or 1, slots or N]`, scalar matrices as they are."""
    client: ClientPart
    report: dict[str, Any] = field(default_factory=dict)
    """What `report` prints: plain JSON data."""
    database: ClientPart | None = None
    """For a search in encrypted rows: how their owner packs them. The program takes the client's inputs, then these."""

    @property
    def params(self) -> ParameterSet:
        """The parameters that keys and ciphertexts have."""
        return self.program.params

    @property
    def keys(self) -> tuple[KeySpec, ...]:
        """The evaluation keys that a client must make."""
        return tuple(self.program.checked.keys)
