"""The secret key: a ternary polynomial in memory of its own (`secret_memory`), that nothing prints, pickles or copies.

Limits, in plain words: `docs/explanation/encrypted-core.md`.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.keys.sampling import Unshared, secret_bytes
from lattice.fhe.keys.secret_memory import SecretMemory, secret_memory


class SecretKey(Unshared):
    """s ∈ {-1, 0, 1}^N. Made by `KeyGenerator` or opened by `store_format`; use it in a `with` block or call `wipe`."""

    __slots__ = ("__weakref__", "_memory", "key_id", "params")

    def __init__(
        self, params: ParameterSet, coefficients: NDArray[np.int8] | SecretMemory, key_id: str | None = None
    ) -> None:
        self.params = params
        self._memory = _memory_of(params, coefficients)
        self.key_id = key_id or f"fsk_{os.urandom(16).hex()}"

    def __repr__(self) -> str:
        return f"SecretKey({self.key_id}, {self.params.id})"

    @property
    def wiped(self) -> bool:
        """Whether `wipe` was called."""
        return self._memory.wiped

    @property
    def locked(self) -> bool:
        """Whether the system keeps all of it out of swap (`ulimit -l` sets how much it can)."""
        return self._memory.locked

    @property
    def memory(self) -> SecretMemory:
        """The polynomial's memory, for this package only."""
        if self._memory.wiped:
            raise LatticeError("secret_locked", f"The secret key {self.key_id} was wiped.")
        return self._memory

    def coefficients(self) -> NDArray[np.int8]:
        """A copy, for whoever must take the key elsewhere. With the native module it is in locked memory that is wiped
        when the last reference goes; what is computed from it is the caller's business.
        """
        out = secret_bytes(self.params.n).view(np.int8)
        self.memory.get_into(out)
        return out

    def wipe(self) -> None:
        """Overwrite the polynomial; the key is of no use afterwards."""
        self._memory.wipe()

    def __enter__(self) -> SecretKey:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __del__(self) -> None:
        if hasattr(self, "_memory"):
            self.wipe()


def _memory_of(params: ParameterSet, given: NDArray[np.int8] | SecretMemory) -> SecretMemory:
    """An array is copied and stays as it is."""
    if not isinstance(given, np.ndarray):
        return given
    memory = secret_memory(params.n)
    try:
        if given.dtype != np.int8:
            raise ValueError("another type")
        memory.set(np.ascontiguousarray(given))
    except ValueError:
        raise LatticeError("parameters_mismatch", "The secret polynomial does not fit the parameters.") from None
    return memory
