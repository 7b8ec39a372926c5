"""Where a secret polynomial lives, and everything that is done with it: two implementations of one small interface.

`_native.SecretBuffer` (native/client) keeps it and its transforms in memory that is locked, left out of core dumps and
wiped; what depends on it reaches Python only as ciphertexts, keys and plaintexts. `NumpySecret` is its twin in numpy,
for the reference backend and for places without the native module: it overwrites what it owns, and leaves what numpy
copied on the way to the allocator. Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.seeds import UniformPolynomial
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal.backend import Backend
from lattice.fhe.keys.numpy_secret import NumpySecret, numpy_zero
from lattice.fhe.keys.sampling import SecretBytes
from lattice.fhe.native_module import HAS_NATIVE, native
from lattice.fhe.ring.modulus import Residues


class SecretMemory(Protocol):
    """A ternary polynomial. After `wipe`, every other method fails."""

    @property
    def wiped(self) -> bool:
        """Whether `wipe` was called."""
        ...

    @property
    def locked(self) -> bool:
        """Whether the system keeps all of it out of swap."""
        ...

    def sample_ternary(self, uniform: SecretBytes) -> None:
        """Fresh coefficients from key stream; `ValueError` if it is too short."""
        ...

    def set(self, coefficients: NDArray[np.int8]) -> None:
        """Coefficients in {-1, 0, 1}, else `ValueError`."""
        ...

    def get_into(self, out: NDArray[np.int8]) -> None:
        """The coefficients."""
        ...

    def pack_into(self, out: SecretBytes) -> None:
        """Two bits for each, value + 1, the lowest first."""
        ...

    def unpack(self, packed: SecretBytes) -> None:
        """Undo `pack_into`; `ValueError` for what is not ternary."""
        ...

    def decrypt(self, components: Residues, moduli: Sequence[int]) -> Residues:
        """Σ_k component_k·s^k, `[count, limbs, n]` to `[limbs, n]`."""
        ...

    def encrypt_into(
        self,
        out: Residues,
        a: Any,
        error: SecretBytes,
        eta: int,
        moduli: Sequence[int],
        plain: Residues | None = None,
        gadget: Sequence[int] | None = None,
        element: int = 0,
    ) -> None:
        """See the function below."""
        ...

    def wipe(self) -> None:
        """Overwrite everything."""
        ...


def is_native(backend: Backend | None) -> bool:
    """Whether this backend's user keeps secrets in native memory."""
    return HAS_NATIVE and (backend is None or backend.name != "reference")


def secret_memory(n: int, backend: Backend | None = None) -> SecretMemory:
    """Memory for n coefficients, all zero."""
    return native.SecretBuffer(n) if is_native(backend) else NumpySecret(n, backend or find_backend())


def encrypt_into(
    memory: SecretMemory,
    out: Residues,
    a: UniformPolynomial,
    error: SecretBytes,
    eta: int,
    *,
    plain: Residues | None = None,
    gadget: Sequence[int] | None = None,
    element: int = 0,
) -> None:
    """out = e - a·s, plus `plain`, or plus `gadget[limb]`·s' for a key, where s' is s² (element 0) or s turned by the
    automorphism X ↦ X^element. `error` is the key stream of e (`SecretSource.error`).
    """
    half = a if isinstance(memory, NumpySecret) else a.for_native()
    memory.encrypt_into(out, half, error, eta, a.moduli, plain, gadget, element)


def encrypt_zero(
    b: Residues, a: UniformPolynomial, u: SecretBytes, errors: Sequence[SecretBytes], eta: int, backend: Backend
) -> Residues:
    """(b·u + e0, a·u + e1) `[2, limbs, n]` for the public key (b, a), from the key streams of u, e0 and e1."""
    if is_native(backend):
        return native.encrypt_zero(np.ascontiguousarray(b), a.for_native(), u, errors[0], errors[1], eta, a.moduli)
    return numpy_zero(b, a, u, errors, eta, backend)


def room(*shape: int) -> Residues:
    """An array for a result; with the native module in recycled memory, whose pages are there already."""
    return native.empty(shape) if HAS_NATIVE else np.empty(shape, dtype=np.uint64)
