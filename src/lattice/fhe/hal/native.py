"""The native backend: C++ in `native/`, for AVX-512 IFMA, AVX2 or anything, chosen at run time; bits never differ.

Arrays are handed over without copies, the GIL is released while they are worked on, and limbs are shared between
threads. What it overrides of the composites is fused: a key switch reads each word of its key once and keeps the
digits of one prime at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe import _native
from lattice.fhe.cancel import Cancel, cancelled
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.embedding import orbit
from lattice.fhe.hal.backend import KeySwitchContext, Residues
from lattice.fhe.hal.composites import ProductPlan, Terms
from lattice.fhe.hal.operations import KeySource
from lattice.fhe.hal.plan import Plan, plan_of
from lattice.fhe.hal.program import Program
from lattice.fhe.hal.weights import AnyPlaintext, tensor_of


@lru_cache(maxsize=256)
def _context(ctx: KeySwitchContext) -> _native.SwitchContext:
    return _native.SwitchContext(ctx.n, ctx.q_moduli, ctx.special, ctx.digits)


def _tidy(x: Residues) -> Residues:
    """Views of odd layout are copied; keys and diagonals, which are large, must be contiguous as they come."""
    return np.ascontiguousarray(x)


@lru_cache(maxsize=8)
def _twiddles(n: int) -> NDArray[np.float64]:
    """Cosines and sines, stage after stage."""
    return np.concatenate([part for stage in orbit(n).stages for part in stage])


class NativeBackend:
    """Every primitive of `Backend`, and the composites whose defaults would move data more often than needed."""

    name = "native"

    # --- settings -----------------------------------------------------------------------------------------

    def isa(self) -> str:
        """The instruction set in use."""
        return _native.isa()

    def available_isas(self) -> tuple[str, ...]:
        """Those that this machine can run, slowest first."""
        return tuple(_native.available_isas())

    def set_isa(self, name: str) -> None:
        """Use another one, in the whole process. No result changes."""
        if name not in _native.available_isas():
            there = ", ".join(_native.available_isas())
            raise LatticeError("backend_unavailable", f"This machine does not run {name!r}; there are {there}.")
        _native.set_isa(name)

    def threads(self) -> int:
        """How many threads share the limbs, the caller's among them."""
        return _native.threads()

    def set_threads(self, count: int) -> None:
        """Use another number, in the whole process. No result changes."""
        _native.set_threads(count)

    # --- primitives ---------------------------------------------------------------------------------------

    def ntt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Coefficients to evaluations."""
        return _native.ntt(_tidy(x), moduli)

    def intt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Evaluations to coefficients."""
        return _native.intt(_tidy(x), moduli)

    def add(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x + y; y may repeat over the leading axes of x, here and below."""
        return _native.add(_tidy(x), _tidy(y), moduli)

    def sub(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x - y."""
        return _native.sub(_tidy(x), _tidy(y), moduli)

    def neg(self, x: Residues, moduli: Sequence[int]) -> Residues:
        """-x."""
        return _native.neg(_tidy(x), moduli)

    def mul(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """x·y."""
        return _native.mul(_tidy(x), _tidy(y), moduli)

    def mul_add(self, acc: Residues, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """acc + x·y."""
        return _native.mul_add(_tidy(acc), _tidy(x), _tidy(y), moduli)

    def mul_scalar(self, x: Residues, scalars: Sequence[int], moduli: Sequence[int]) -> Residues:
        """Limb k times `scalars[k]`."""
        return _native.mul_scalar(_tidy(x), [s % q for s, q in zip(scalars, moduli, strict=True)], moduli)

    def automorphism_ntt(self, x: Residues, g: int) -> Residues:
        """X ↦ X^g on evaluations."""
        return _native.automorphism_ntt(_tidy(x), g)

    def convert(self, x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
        """Centred base conversion."""
        return _native.convert(_tidy(x), source, target)

    def mod_up(self, x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
        """Extend coefficients to more primes."""
        return _native.mod_up(_tidy(x), source, target)

    def mod_down(self, x: Residues, kept: Sequence[int], dropped: Sequence[int]) -> Residues:
        """Divide evaluations by the dropped primes, rounding."""
        return _native.mod_down(_tidy(x), kept, dropped)

    def rescale(self, x: Residues, kept: Sequence[int], dropped: Sequence[int]) -> Residues:
        """Divide evaluations by a level group, rounding."""
        return _native.mod_down(_tidy(x), kept, dropped)

    def encode_slots(
        self, slots: NDArray[np.complex128], scale: float, moduli: Sequence[int]
    ) -> tuple[Residues, float]:
        """Slots `[count, N/2]` as the encoder makes them, and the largest coefficient: past 2^62 nothing is written."""
        real, imaginary = np.ascontiguousarray(slots.real), np.ascontiguousarray(slots.imag)
        return _native.encode(real, imaginary, scale, _twiddles(2 * slots.shape[-1]), moduli)

    def decompose(self, c: Residues, ctx: KeySwitchContext) -> Residues:
        """Cut evaluations into digits and extend each to all primes."""
        return _context(ctx).decompose(_tidy(c))

    def gadget_product(self, digits: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
        """Σ_d digit_d ⊙ key_d for both halves."""
        return _context(ctx).gadget_product(_tidy(digits), key)

    # --- composites ---------------------------------------------------------------------------------------

    def key_switch(self, c: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
        """See `composites.key_switch`, as for those below."""
        return _context(ctx).key_switch(_tidy(c), key)

    def rotate(self, ct: Residues, element: int, key: Residues, ctx: KeySwitchContext) -> Residues:
        """σ(ct) under s."""
        return _context(ctx).rotate_hoisted(_tidy(ct), [element], [key])[0]

    def rotate_hoisted(
        self, ct: Residues, elements: Sequence[int], keys: Sequence[Residues], ctx: KeySwitchContext
    ) -> list[Residues]:
        """Several rotations of one ciphertext."""
        return _context(ctx).rotate_hoisted(_tidy(ct), elements, keys)

    def rotate_sum(
        self, ct: Residues, elements: Sequence[int], keys: Sequence[Residues], ctx: KeySwitchContext
    ) -> Residues:
        """The ciphertext and several of its rotations, added up."""
        return _context(ctx).rotate_sum(_tidy(ct), elements, keys)

    def multiply(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """The tensor product, to be relinearised."""
        return _native.multiply(_tidy(x), _tidy(y), moduli)

    def relinearise(self, ct: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
        """Three components to two."""
        return _context(ctx).relinearise(_tidy(ct), key)

    def matrix(
        self,
        cts: Sequence[Residues],
        diagonals: Residues,
        keys: Mapping[int, Residues],
        plan: ProductPlan,
        ctx: KeySwitchContext,
    ) -> list[Residues]:
        """Matrix–vector products."""
        needed = {element: keys[element] for element in plan.elements}
        return _context(ctx).matrix([_tidy(ct) for ct in cts], diagonals, needed, plan.babies, plan.giants, plan.terms)

    def sum_plain(
        self, cts: Sequence[Residues], plain: Residues, terms: Terms, moduli: Sequence[int]
    ) -> list[Residues]:
        """Sums of products with plaintexts."""
        return _native.sum_plain([_tidy(ct) for ct in cts], plain, terms, moduli)

    def sum_periodic(self, cts: Sequence[Residues], weights: Residues, moduli: Sequence[int]) -> list[Residues]:
        """Sums of products with plaintexts that repeat."""
        return _native.sum_periodic([_tidy(ct) for ct in cts], weights, moduli)

    # --- programs -----------------------------------------------------------------------------------------

    def run(
        self,
        program: Program,
        inputs: Sequence[Ciphertext],
        keys: KeySource | None,
        weights: Sequence[AnyPlaintext],
        cancel: Cancel | None = None,
    ) -> list[Ciphertext]:
        """A whole program in one call, with the interpreter's bits. Everything was checked by `interpreter.run`."""
        plan, native = _plan(program)
        tensors = []
        for spec in plan.keys:
            tensor = keys.tensor(spec.element, spec.level) if keys is not None else None
            assert tensor is not None, "the interpreter looked for every key"
            tensors.append(tensor)
        tidy = [_tidy(x.components) for x in inputs], [_tidy(tensor_of(w)) for w in weights]
        flag = cast(_native.CancelFlag, cancel.flag) if cancel is not None else None
        try:
            outs = native.run(*tidy, tensors, flag)
        except _native.Cancelled as stop:
            raise cancelled(int(str(stop))) from None
        kinds, params_id = program.checked.outputs, program.params.id
        return [
            Ciphertext(params_id, kind.level, kind.scale, out, kind.encoding)
            for kind, out in zip(kinds, outs, strict=True)
        ]


def _plan(program: Program) -> tuple[Plan, _native.Plan]:
    """Kept with the program."""
    found: tuple[Plan, _native.Plan] | None = program.__dict__.get("_native_plan")
    if found is None:
        plan = plan_of(program)
        found = program.__dict__.setdefault("_native_plan", (plan, _native.Plan(plan.words)))
    return found
