"""Every backend, instruction set and number of threads that this machine has: the suite runs over all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lattice.fhe.hal import available_backends
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.choose import choose

THREADS = (1, 2)


def contestants() -> list[tuple[str, str | None, int]]:
    """(backend, instruction set, threads)."""
    found: list[tuple[str, str | None, int]] = [("reference", None, 1)]
    for name in available_backends():
        if name != "reference":
            found += [(name, isa, threads) for isa in choose(name).isas for threads in THREADS]
    return found


def label(contestant: tuple[str, str | None, int]) -> str:
    """`native-avx2-2`."""
    return "-".join(str(part) for part in contestant if part is not None)


@pytest.fixture(params=contestants(), ids=label)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """One contestant, its settings put back afterwards."""
    name, isa, threads = request.param
    before = choose(name)
    yield choose(name, isa=isa, threads=threads).backend
    if isa is not None:
        choose(name, isa=before.isa, threads=before.threads)
