"""The secret key: a ternary polynomial in a buffer that is wiped, and that nothing prints, pickles or copies.

Limits, in plain words: numpy buffers that this class owns are overwritten by `wipe` and on garbage collection;
short-lived copies that numpy or Python make while computing are overwritten where we hold them and otherwise left to
the allocator, and the operating system may have written any of it to swap. The native client keeps the polynomial in
locked memory.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.keys.sampling import wipe
from lattice.fhe.ring.modulus import Residues, reduce_signed
from lattice.fhe.ring.ntt import Transforms


class SecretKey:
    """s ∈ {-1, 0, 1}^N. Made by `KeyGenerator` or opened by `store_format`; use it in a `with` block or call `wipe`."""

    __slots__ = ("__weakref__", "_coefficients", "_evaluations", "key_id", "params")

    def __init__(self, params: ParameterSet, coefficients: NDArray[np.int8], key_id: str | None = None) -> None:
        if coefficients.shape != (params.n,) or coefficients.dtype != np.int8 or np.abs(coefficients).max() > 1:
            raise LatticeError("parameters_mismatch", "The secret polynomial does not fit the parameters.")
        self.params = params
        self.key_id = key_id or f"fsk_{os.urandom(16).hex()}"
        self._coefficients = coefficients
        self._evaluations: dict[int, Residues] = {}

    def __repr__(self) -> str:
        return f"SecretKey({self.key_id}, {self.params.id})"

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a secret key is not pickled or copied; `store_format` encrypts it for storage")

    __reduce_ex__ = __reduce__ = __getstate__ = __copy__ = __deepcopy__ = _refuse

    @property
    def wiped(self) -> bool:
        """Whether `wipe` was called."""
        return not len(self._coefficients)

    def coefficients(self) -> NDArray[np.int8]:
        """The buffer itself, for this package only."""
        if self.wiped:
            raise LatticeError("secret_locked", f"The secret key {self.key_id} was wiped.")
        return self._coefficients

    def ntt(self, moduli: Sequence[int], transforms: Transforms) -> Residues:
        """s in NTT form over these primes; each prime is transformed once. A copy that the caller wipes."""
        missing = [q for q in moduli if q not in self._evaluations]
        if missing:
            wide = self.coefficients().astype(np.int64)
            residues = reduce_signed(wide, missing)
            for q, limb in zip(missing, transforms.ntt(residues, missing, self.params.n), strict=True):
                self._evaluations[q] = limb
            wipe(wide, residues)
        self.coefficients()
        return np.stack([self._evaluations[q] for q in moduli])

    def wipe(self) -> None:
        """Overwrite the polynomial; the key is of no use afterwards."""
        wipe(self._coefficients, *self._evaluations.values())
        self._coefficients = np.empty(0, dtype=np.int8)
        self._evaluations = {}

    def __enter__(self) -> SecretKey:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __del__(self) -> None:
        if hasattr(self, "_evaluations"):
            self.wipe()
