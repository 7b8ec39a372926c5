"""The numpy twin of `_native.SecretBuffer`: readable, on any backend, and the reference for the native code's bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.seeds import UniformPolynomial
from lattice.fhe.hal.backend import Backend
from lattice.fhe.keys.sampling import SecretBytes, Unshared, binomial_of, ternary_of, wipe
from lattice.fhe.ring.modulus import Residues, reduce_signed


class NumpySecret(Unshared):
    """See `secret_memory.SecretMemory`."""

    locked = False

    def __init__(self, n: int, backend: Backend) -> None:
        self._coefficients = np.zeros(n, dtype=np.int8)
        self._evaluations: dict[int, Residues] = {}
        self._backend = backend
        self.wiped = False

    def __repr__(self) -> str:
        return f"NumpySecret({'wiped' if self.wiped else len(self._coefficients)})"

    def sample_ternary(self, uniform: SecretBytes) -> None:
        """The first n fields that are accepted."""
        drawn = ternary_of(_words(uniform), len(self._coefficients))
        if len(drawn) < len(self._coefficients):
            raise ValueError("too few bytes for that many coefficients")
        self._take(drawn)
        wipe(drawn)

    def set(self, coefficients: NDArray[np.int8]) -> None:
        """A copy of them."""
        if coefficients.shape != self._coefficients.shape or not (abs(coefficients) <= 1).all():
            raise ValueError("coefficients must be -1, 0 or 1")
        self._take(coefficients)

    def _take(self, coefficients: NDArray[np.signedinteger]) -> None:
        self._require_unwiped()
        wipe(*self._evaluations.values())
        self._evaluations = {}
        self._coefficients[:] = coefficients

    def get_into(self, out: NDArray[np.int8]) -> None:
        """The coefficients."""
        self._require_unwiped()
        out[:] = self._coefficients

    def pack_into(self, out: SecretBytes) -> None:
        """Four to a byte."""
        self._require_unwiped()
        fields = (self._coefficients + 1).view(np.uint8).reshape(-1, 4)
        shifted = fields << np.arange(0, 8, 2, dtype=np.uint8)
        np.bitwise_or.reduce(shifted, axis=1, out=out)
        wipe(fields, shifted)

    def unpack(self, packed: SecretBytes) -> None:
        """Four from a byte."""
        fields = packed[:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & np.uint8(3)
        coefficients = fields.ravel().view(np.int8) - np.int8(1)
        try:
            self.set(coefficients)
        finally:
            wipe(fields, coefficients)

    def decrypt(self, components: Residues, moduli: Sequence[int]) -> Residues:
        """By Horner's rule."""
        s = self._ntt(moduli)
        poly: Residues = components[-1]
        for component in components[-2::-1]:
            poly = self._backend.mul_add(component, poly, s, moduli)
        wipe(s)
        return poly

    def encrypt_into(
        self,
        out: Residues,
        a: UniformPolynomial,
        error: SecretBytes,
        eta: int,
        moduli: Sequence[int],
        plain: Residues | None = None,
        gadget: Sequence[int] | None = None,
        element: int = 0,
    ) -> None:
        """e - a·s + plain + gadget·s'."""
        s = self._ntt(moduli)
        noisy = _transformed(_error(error, a.n, eta), moduli, self._backend)
        masked = self._backend.mul(a.expand(), s, moduli)
        out[...] = self._backend.sub(noisy, masked, moduli)
        if plain is not None:
            out[...] = self._backend.add(out, plain, moduli)
        if gadget is not None:
            turn = self._backend.automorphism_ntt
            target = turn(s, element) if element else self._backend.mul(s, s, moduli)
            lifted = self._backend.mul_scalar(target, gadget, moduli)
            out[...] = self._backend.add(out, lifted, moduli)
            wipe(target, lifted)
        wipe(s, noisy, masked)

    def _ntt(self, moduli: Sequence[int]) -> Residues:
        """s in NTT form; each prime is transformed once. A copy that the caller wipes."""
        self._require_unwiped()
        missing = [q for q in moduli if q not in self._evaluations]
        if missing:
            limbs = _transformed(self._coefficients.astype(np.int64), missing, self._backend)
            self._evaluations |= zip(missing, limbs, strict=True)
        return np.stack([self._evaluations[q] for q in moduli])

    def _require_unwiped(self) -> None:
        if self.wiped:
            raise RuntimeError("the secret was wiped")

    def wipe(self) -> None:
        """Zeros everything."""
        wipe(self._coefficients, *self._evaluations.values())
        self._evaluations = {}
        self.wiped = True

    def __del__(self) -> None:
        if hasattr(self, "_evaluations"):
            self.wipe()


def numpy_zero(
    b: Residues, a: UniformPolynomial, u: SecretBytes, errors: Sequence[SecretBytes], eta: int, backend: Backend
) -> Residues:
    """See `secret_memory.encrypt_zero`."""
    moduli = a.moduli
    ephemeral = _transformed(ternary_of(_words(u), a.n), moduli, backend)
    out = np.empty((2, len(moduli), a.n), dtype=np.uint64)
    for number, half in enumerate((b, a.expand())):
        error = _transformed(_error(errors[number], a.n, eta), moduli, backend)
        out[number] = backend.mul_add(error, half, ephemeral, moduli)
        wipe(error)
    wipe(ephemeral)
    return out


def _words(stream: SecretBytes) -> NDArray[np.uint64]:
    """Key stream as little-endian words; no copy where the machine is so too."""
    return stream.view("<u8").astype(np.uint64, copy=False)


def _error(stream: SecretBytes, n: int, eta: int) -> NDArray[np.int64]:
    if len(stream) < 8 * n:
        raise ValueError("too few bytes for that many coefficients")
    return binomial_of(_words(stream[: 8 * n]), eta)


def _transformed(small: NDArray[np.int64], moduli: Sequence[int], backend: Backend) -> Residues:
    """In NTT form; the argument is wiped."""
    residues = reduce_signed(small, moduli)
    out = backend.ntt(residues, moduli, len(small))
    wipe(small, residues)
    return out
