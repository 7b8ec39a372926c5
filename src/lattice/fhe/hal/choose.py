"""Which backend runs here, and why: what `lattice doctor` prints about encrypted computation.

The choice is `hal.backend()`'s; this module explains it. All backends give the same bits, so the choice is about speed.
"""

from __future__ import annotations

from typing import NamedTuple

from lattice.core.errors import LatticeError
from lattice.fhe.hal import available_backends, backend
from lattice.fhe.hal.backend import Backend

FASTEST = "avx512ifma"


class Choice(NamedTuple):
    """A backend with what there is to know about it."""

    backend: Backend
    isa: str
    """The instruction set in use: `avx512ifma`, `avx2`, `scalar`; `numpy` for the reference."""
    isas: tuple[str, ...]
    """All that this machine could run."""
    threads: int

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.backend.name

    def explain(self) -> str:
        """One line for people."""
        if self.name != "native":
            return f"{self.name}: correct and slow; the native module is not installed or does not run on this machine"
        note = "" if self.isa == FASTEST else f" (this CPU or setting has no {FASTEST}: expect a fraction of the speed)"
        return f"native, {self.isa}, {self.threads} thread{'s' if self.threads != 1 else ''}{note}"


def choose(name: str | None = None, *, threads: int | None = None, isa: str | None = None) -> Choice:
    """The named backend, or the fastest; optionally with another number of threads or a weaker instruction set."""
    found = backend(name)
    if isa is not None:
        _set_isa(found, isa)
    if threads is not None and hasattr(found, "set_threads"):
        if threads < 1:
            raise LatticeError("backend_unavailable", f"A backend cannot run on {threads} threads.")
        found.set_threads(threads)
    return describe(found)


def choices() -> tuple[Choice, ...]:
    """Every backend that is there, the default first."""
    first = backend().name
    names = sorted(available_backends(), key=lambda name: name != first)
    return tuple(describe(backend(name)) for name in names)


def describe(found: Backend) -> Choice:
    """What a backend says about itself; one that says nothing is numpy on one thread."""
    isa = getattr(found, "isa", None)
    isas = getattr(found, "available_isas", None)
    threads = getattr(found, "threads", 1)
    name = isa() if callable(isa) else isa or "numpy"
    return Choice(
        found, name, tuple(isas()) if callable(isas) else (name,), threads() if callable(threads) else threads
    )


def _set_isa(found: Backend, isa: str) -> None:
    there = describe(found).isas
    if isa not in there:
        raise LatticeError("backend_unavailable", f"{found.name} has no {isa!r} here; there are {', '.join(there)}.")
    if hasattr(found, "set_isa"):
        found.set_isa(isa)
