"""Model ids of one machine and of the catalogue."""

from __future__ import annotations

import pytest

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.core.models import CatalogueTarget, PersonalTarget, parse_model, personal_model

RUNTIME = new_id(Prefix.RUNTIME, 0)


@pytest.mark.parametrize("local", [None, "smollm2", "org/model:Q4_K_M"])
def test_a_machines_model_id_reads_back(local: str | None) -> None:
    assert parse_model(personal_model(RUNTIME, local)) == PersonalTarget(RUNTIME, local)


def test_a_trailing_colon_means_the_default_model() -> None:
    assert parse_model(personal_model(RUNTIME) + ":") == PersonalTarget(RUNTIME, None)


@pytest.mark.parametrize("model", ["smollm2-135m", "lattice:smollm2-135m"])
def test_catalogue_ids_may_be_bare(model: str) -> None:
    assert parse_model(model) == CatalogueTarget("smollm2-135m")


@pytest.mark.parametrize(
    "model", ["lattice:personal:", "lattice:personal:x", f"lattice:personal:{RUNTIME}x", f"lattice:personal: {RUNTIME}"]
)
def test_a_machine_that_can_not_exist(model: str) -> None:
    with pytest.raises(LatticeError) as caught:
        parse_model(model)
    assert caught.value.code == "personal_lattice_not_found"


@pytest.mark.parametrize("model", ["", "lattice:", "m" * 201])
def test_a_catalogue_entry_that_can_not_exist(model: str) -> None:
    with pytest.raises(LatticeError) as caught:
        parse_model(model)
    assert caught.value.code == "model_not_found"
