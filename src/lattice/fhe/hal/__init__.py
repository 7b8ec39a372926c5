"""The hardware abstraction layer: a protocol of primitives, and the backends that implement it with equal bits."""

from __future__ import annotations

import importlib
from functools import cache

from lattice.core.errors import LatticeError
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.reference import ReferenceBackend

_OPTIONAL = {"native": ("lattice.fhe.hal.native", "NativeBackend"), "cuda": ("lattice.fhe.hal.cuda", "CudaBackend")}
_ORDER = ("native", "reference")
"""Which backend is used where the caller names none: the first that is there."""


@cache
def available_backends() -> tuple[str, ...]:
    """The names that `backend` takes on this machine."""
    return ("reference", *(name for name in _OPTIONAL if _load(name) is not None))


@cache
def _load(name: str) -> Backend | None:
    module, kind = _OPTIONAL[name]
    try:
        made: Backend = getattr(importlib.import_module(module), kind)()
    except (ImportError, AttributeError, LatticeError):
        return None
    return made


@cache
def backend(name: str | None = None) -> Backend:
    """The named backend, or the fastest that is there."""
    if name is None:
        name = next(choice for choice in _ORDER if choice in available_backends())
    if name == "reference":
        return ReferenceBackend()
    found = _load(name) if name in _OPTIONAL else None
    if found is None:
        raise LatticeError(
            "backend_unavailable", f"The backend {name!r} is not there; there are {', '.join(available_backends())}."
        )
    return found
