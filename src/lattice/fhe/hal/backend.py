"""What a backend must do. Tensors are C-contiguous numpy `uint64` `[…, limbs, N]`, fully reduced in and out.

Leading axes are a batch. "NTT form" and "coefficient form" are the caller's knowledge. Everything is out-of-place
unless its name ends in `_into`. All arithmetic is exact, so that one contract suite can demand equal bits from every
backend. Composites (key switch, rotations, products, sums of products) have defaults over these primitives in
`composites`; a backend may override any of them, bit-exact with the default, by having a method of that name. So it may
have `run(program, inputs, keys, weights, cancel)`, which gets whole programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from lattice.fhe.ckks.digits import KeySwitchContext
from lattice.fhe.ring.modulus import Residues

__all__ = ["Backend", "KeySwitchContext", "Residues"]


@runtime_checkable
class Backend(Protocol):
    """The required primitives."""

    @property
    def name(self) -> str:
        """`reference`, `native`, `cuda`."""
        ...

    def ntt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Coefficients `[…, limbs, n]` in natural order to evaluations in bit-reversed order."""
        ...

    def intt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Undo `ntt`."""
        ...

    def add(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x + y."""
        ...

    def sub(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x - y."""
        ...

    def neg(self, x: Residues, moduli: Sequence[int]) -> Residues:
        """-x."""
        ...

    def mul(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x·y, entry by entry."""
        ...

    def mul_add(self, acc: Residues, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """acc + x·y, entry by entry."""
        ...

    def mul_scalar(self, x: Residues, scalars: Sequence[int], moduli: Sequence[int]) -> Residues:
        """Limb k times the integer `scalars[k]`."""
        ...

    def automorphism_ntt(self, x: Residues, g: int) -> Residues:
        """X ↦ X^g on evaluations: a permutation of positions."""
        ...

    def convert(self, x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
        """Centred base conversion of coefficients `[…, source, n]` to `[…, target, n]`."""
        ...

    def mod_up(self, x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
        """Extend coefficients to `target`; limbs that are in `source` are kept as they are."""
        ...

    def mod_down(self, x: Residues, kept: Sequence[int], dropped: Sequence[int]) -> Residues:
        """Evaluations over `kept` ∪ `dropped` (in this order), divided by Π dropped and rounded: over `kept`."""
        ...

    def rescale(self, x: Residues, kept: Sequence[int], dropped: Sequence[int]) -> Residues:
        """`mod_down` by a dropped level group."""
        ...

    def decompose(self, c: Residues, ctx: KeySwitchContext) -> Residues:
        """Evaluations `[limbs, n]` over `ctx.q_moduli` to digits `[digits, ctx.moduli, n]` in NTT form."""
        ...

    def gadget_product(self, digits: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
        """Σ_d digit_d ⊙ key_d: `[digits, limbs, n]` and `[≥ digits, 2, key limbs, n]` to `[2, ctx.moduli, n]`.

        The key may be of a higher level: see `KeySwitchContext.key_limbs` for the limbs to read.
        """
        ...
