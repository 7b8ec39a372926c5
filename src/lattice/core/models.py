"""Model ids: `lattice:personal:<latticeId>[:<local model>]`, `lattice:encrypted:<modelId>`, `lattice:<canonical>` and
the bare canonical id."""

from __future__ import annotations

from typing import NamedTuple

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, is_id

PERSONAL = "lattice:personal:"
CATALOGUE = "lattice:"
ENCRYPTED = "encrypted:"
"""Behind `CATALOGUE`: a model that takes encrypted input only."""


class PersonalTarget(NamedTuple):
    """One named machine; work for it is never rerouted. `local_model` is None for the machine's default."""

    runtime_id: str
    local_model: str | None


class CatalogueTarget(NamedTuple):
    """A catalogue entry that any runtime of the allowed pools may serve."""

    canonical: str

    @property
    def encrypted_id(self) -> str | None:
        """The id of the encrypted model that is meant; None for every other model."""
        model_id = self.canonical.removeprefix(ENCRYPTED)
        return model_id if is_id(Prefix.MODEL, model_id) else None


def parse_model(model: str) -> PersonalTarget | CatalogueTarget:
    """Split a model id, or raise `model_not_found` / `personal_lattice_not_found` for one that cannot exist."""
    if model.startswith(PERSONAL):
        runtime_id, _, local = model.removeprefix(PERSONAL).partition(":")
        if not is_id(Prefix.RUNTIME, runtime_id):
            raise LatticeError("personal_lattice_not_found", "The model id names no well-formed runtime id.")
        return PersonalTarget(runtime_id, local or None)
    canonical = model.removeprefix(CATALOGUE)
    if not canonical or len(canonical) > 200:
        raise LatticeError("model_not_found", "The model id is empty or too long.")
    return CatalogueTarget(canonical)


def personal_model(runtime_id: str, local_model: str | None = None) -> str:
    """The public model id of a machine."""
    return f"{PERSONAL}{runtime_id}" + (f":{local_model}" if local_model else "")


def encrypted_model(model_id: str) -> str:
    """The public model id of an encrypted model."""
    return CATALOGUE + ENCRYPTED + model_id
