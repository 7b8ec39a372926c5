"""The reference backend: `lattice.fhe.ring` in numpy, one line per primitive. Slow, readable, and the specification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lattice.fhe.hal.backend import KeySwitchContext
from lattice.fhe.ring import automorphism, modulus, ntt, rns
from lattice.fhe.ring.modulus import Residues


class ReferenceBackend:
    """Every primitive of `Backend`, in numpy."""

    name = "reference"

    def ntt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Coefficients to evaluations."""
        return ntt.ntt(x, moduli, n)

    def intt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Evaluations to coefficients."""
        return ntt.intt(x, moduli, n)

    def add(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x + y."""
        return modulus.add(x, y, moduli)

    def sub(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x - y."""
        return modulus.sub(x, y, moduli)

    def neg(self, x: Residues, moduli: Sequence[int]) -> Residues:
        """-x."""
        return modulus.neg(x, moduli)

    def mul(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x·y."""
        return modulus.mul(x, y, moduli)

    def mul_add(self, acc: Residues, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """acc + x·y."""
        return modulus.mul_add(acc, x, y, moduli)

    def mul_scalar(self, x: Residues, scalars: Sequence[int], moduli: Sequence[int]) -> Residues:
        """Limb k times `scalars[k]`."""
        return modulus.mul_scalar(x, scalars, moduli)

    def automorphism_ntt(self, x: Residues, g: int) -> Residues:
        """X ↦ X^g on evaluations."""
        return automorphism.automorphism_ntt(x, g)

    def convert(self, x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
        """Centred base conversion."""
        return rns.convert(x, source, target)

    def mod_up(self, x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
        """Extend coefficients to more primes."""
        return rns.mod_up(x, source, target)

    def mod_down(self, x: Residues, kept: Sequence[int], dropped: Sequence[int]) -> Residues:
        """Divide evaluations by the dropped primes, rounding."""
        return rns.mod_down(x, kept, dropped, self)

    def rescale(self, x: Residues, kept: Sequence[int], dropped: Sequence[int]) -> Residues:
        """Divide evaluations by a level group, rounding."""
        return rns.mod_down(x, kept, dropped, self)

    def decompose(self, c: Residues, ctx: KeySwitchContext) -> Residues:
        """Cut evaluations into digits and extend each to all primes. The digit's own limbs need no second transform."""
        coefficients = self.intt(c, ctx.q_moduli, ctx.n)
        out = np.empty((len(ctx.digits), *c.shape[:-2], len(ctx.moduli), ctx.n), dtype=np.uint64)
        for digit, (start, end) in enumerate(ctx.digits):
            extended = self.mod_up(coefficients[..., start:end, :], ctx.digit_moduli(digit), ctx.moduli)
            out[digit] = self.ntt(extended, ctx.moduli, ctx.n)
            out[digit, ..., start:end, :] = c[..., start:end, :]
        return out

    def gadget_product(self, digits: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
        """Σ_d digit_d ⊙ key_d for both halves."""
        limbs = ctx.key_limbs(key.shape[-2])
        out = np.zeros((2, *digits.shape[1:]), dtype=np.uint64)
        for digit in range(len(ctx.digits)):
            for half in range(2):
                out[half] = self.mul_add(out[half], digits[digit], key[digit, half, limbs], ctx.moduli)
        return out
