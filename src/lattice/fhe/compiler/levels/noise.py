"""The error of a program, predicted: every instruction's noise, drawn at random, on plain slot vectors.

A polynomial with independent coefficients of variance v has real slots of variance N/2·v. The variances v, in units of
the integers that are encoded (so divided by the scale to compare with values):

| what | v |
|---|---|
| encryption under the secret key | η/2 |
| rounding of an encoded value | 1/12 |
| dividing by a product of k primes (rescale, ModDown), of c0 and of c1·s | k/12·(1 + 2N/3) |
| gadget product, over P: digit d of k_d primes times its key's error | Σ_d N·k_d·D_d²/12·η/2 / P² |

k/12 and not 1/12 because base conversion of k primes adds k remainders. A secret coefficient has variance 2/3. The
program is run by `hal.interpreter` itself, over `NoisyOperations` in the place of the real ones, so every rounding
point is where the program has it. Weights are perturbed once, by what encoding them rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod, sqrt
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.embedding import to_coefficients, to_slots
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler.circuit import Real
from lattice.fhe.hal import interpreter, rules
from lattice.fhe.hal.composites import ProductPlan
from lattice.fhe.hal.program import Program, Weight
from lattice.fhe.hal.rules import CiphertextType, PlaintextType

SECRET_VARIANCE = 2.0 / 3.0
EXACT_VALUES = 1 << 20


class Variances:
    """Of the coefficients of what each primitive adds, in integers."""

    def __init__(self, params: ParameterSet) -> None:
        self.params, self.n = params, params.n
        self.error = params.error_eta / 2.0
        self.fresh = self.error + 1.0 / 12.0

    def divided(self, primes: int, *, both: bool = True) -> float:
        """Division by a product of so many primes, of a ciphertext; of its c1 alone if not `both`."""
        return primes / 12.0 * (SECRET_VARIANCE * self.n + (1.0 if both else 0.0))

    def gadget(self, level: int) -> float:
        """A gadget product, as if divided by P exactly."""
        context = self.params.key_switch_context(level, level)
        scale = float(prod(context.special))
        total = 0.0
        for digit in range(len(context.digits)):
            primes = context.digit_moduli(digit)
            total += len(primes) * (float(prod(primes)) / scale) ** 2
        return self.n * total / 12.0 * self.error

    def switched(self, level: int, *, products: int = 1) -> float:
        """Gadget products summed before one ModDown."""
        return products * self.gadget(level) + self.divided(len(self.params.special_at(level)))

    def blinded(self, level: int) -> float:
        """A fresh encryption of zero under the public key, divided by P where there is one."""
        wide = self.n * self.error * 2 * SECRET_VARIANCE + self.error
        special = self.params.special_at(level)
        return wide / float(prod(special)) ** 2 + self.divided(len(special)) if special else wide

    def in_slots(self, variance: float) -> float:
        """The standard deviation of the real part of a slot."""
        return sqrt(self.n / 2.0 * variance)


class Noisy(NamedTuple):
    """A ciphertext by type and values `[samples, slots]`, or a plaintext with values."""

    kind: CiphertextType
    values: Real


class NoisyPlain(NamedTuple):
    """A weight with its rounding errors."""

    kind: PlaintextType
    values: Real

    @property
    def polys(self) -> Real:
        """As `Diagonals` name them."""
        return self.values


class NoisyOperations:
    """`hal.operations.Operations` on slots in the clear plus noise."""

    def __init__(self, params: ParameterSet, seed: int = 0) -> None:
        self.params = params
        self.variances = Variances(params)
        self.random = np.random.default_rng(seed)

    # --- noise --------------------------------------------------------------------------------------------

    def _noise(self, x: Real, variance: float, scale: Fraction) -> Real:
        drawn = self.random.standard_normal(x.shape, dtype=np.float32)
        return x + drawn * (self.variances.in_slots(variance) / float(scale))

    def encrypted(self, kind: CiphertextType, values: Real) -> Noisy:
        """A fresh ciphertext."""
        return Noisy(kind, self._noise(values, self.variances.fresh, kind.scale))

    def weight(self, declared: Weight, values: NDArray[np.floating[Any]]) -> NoisyPlain:
        """Rounded as encoding rounds it: structured diagonals make structured errors, which add up. Very large weights
        get random ones, which is quicker."""
        kind = declared.kind
        if kind.period <= 1 < values.shape[-1] and values.size <= EXACT_VALUES:
            whole = np.rint(to_coefficients(values.astype(np.complex128)) * float(kind.scale))
            return NoisyPlain(kind, to_slots(whole).real / float(kind.scale))
        coefficients = 2 * kind.period if kind.period else self.params.n
        spread = sqrt(coefficients / 24.0) / float(kind.scale)
        return NoisyPlain(kind, values + self.random.normal(size=values.shape) * spread)

    def blinded(self, x: Noisy) -> Noisy:
        """With an encryption of zero added."""
        return Noisy(x.kind, self._noise(x.values, self.variances.blinded(x.kind.level), x.kind.scale))

    # --- types --------------------------------------------------------------------------------------------

    def type_of(self, x: Noisy) -> CiphertextType:
        """Its type."""
        return x.kind

    def settle(self, x: Noisy) -> Noisy:
        """As the rules say."""
        return Noisy(rules.settle(x.kind), x.values)

    def drop(self, x: Noisy, level: int) -> Noisy:
        """As the rules say."""
        return Noisy(rules.drop(self.params, x.kind, level), x.values)

    # --- sums and constants -------------------------------------------------------------------------------

    def add(self, x: Noisy, y: Noisy) -> Noisy:
        """Exact."""
        return Noisy(rules.add(x.kind, y.kind), x.values + y.values)

    def subtract(self, x: Noisy, y: Noisy) -> Noisy:
        """Exact."""
        return Noisy(rules.add(x.kind, y.kind), x.values - y.values)

    def negate(self, x: Noisy) -> Noisy:
        """Exact."""
        return Noisy(x.kind, -x.values)

    def add_plain(self, x: Noisy, plain: NoisyPlain) -> Noisy:
        """Exact but for the weight."""
        return Noisy(rules.add_plain(x.kind, plain.kind), x.values + plain.values.reshape(-1))

    def add_constant(self, x: Noisy, value: float) -> Noisy:
        """Exact but for a rounding far below all others."""
        return Noisy(rules.add_constant(x.kind), x.values + value)

    def multiply_constant(self, x: Noisy, value: float, scale: Fraction) -> Noisy:
        """The constant is rounded."""
        kind = rules.multiply_constant(self.params, x.kind, scale)
        return Noisy(kind, x.values * (round(Fraction(value) * scale) / float(scale)))

    # --- products -----------------------------------------------------------------------------------------

    def multiply_plain(self, x: Noisy, plain: NoisyPlain) -> Noisy:
        """Exact but for the weight."""
        return Noisy(rules.multiply_plain(self.params, x.kind, plain.kind), x.values * plain.values.reshape(-1))

    def multiply(self, x: Noisy, y: Noisy) -> Noisy:
        """Exact."""
        return Noisy(rules.multiply(self.params, x.kind, y.kind), x.values * y.values)

    def relinearise(self, x: Noisy) -> Noisy:
        """A key switch."""
        kind = rules.relinearise(x.kind)
        return Noisy(kind, self._noise(x.values, self.variances.switched(kind.level), kind.scale))

    def rescale(self, x: Noisy) -> Noisy:
        """Rounds."""
        kind = rules.rescale(self.params, x.kind)
        dropped = len(self.params.levels[kind.level])
        return Noisy(kind, self._noise(x.values, self.variances.divided(dropped), kind.scale))

    # --- rotations ----------------------------------------------------------------------------------------

    def rotate(self, x: Noisy, steps: int) -> Noisy:
        """A key switch."""
        kind = rules.rotate(x.kind)
        return Noisy(kind, self._noise(_turned(x.values, steps), self.variances.switched(kind.level), kind.scale))

    def rotate_hoisted(self, x: Noisy, steps: Sequence[int]) -> list[Noisy]:
        """One key switch each."""
        return [self.rotate(x, step) for step in steps]

    def rotate_sum(self, x: Noisy, steps: Sequence[int]) -> Noisy:
        """One ModDown for all."""
        kind = rules.rotate(x.kind)
        total = x.values + sum(_turned(x.values, step) for step in steps)
        return Noisy(kind, self._noise(total, self.variances.switched(kind.level, products=len(steps)), kind.scale))

    # --- sums of products ---------------------------------------------------------------------------------

    def matrix(self, inputs: Sequence[Noisy], diagonals: NoisyPlain, plan: ProductPlan) -> list[Noisy]:
        """Baby steps carry a gadget product's noise into the products; giant steps a ModDown of c1 and another."""
        kind = rules.matrix(self.params, [x.kind for x in inputs], diagonals.kind)
        gadget, source = self.variances.gadget(kind.level), inputs[0].kind.scale
        special = len(self.params.special_at(kind.level))
        turned: dict[tuple[int, int], Real] = {}
        for i, b in sorted({(i, b) for out in plan.terms for terms in out for i, b, _ in terms}):
            values = _turned(inputs[i].values, plan.babies[b])
            turned[i, b] = self._noise(values, gadget, source) if plan.babies[b] else values
        outs = []
        for out in plan.terms:
            total = np.zeros_like(inputs[0].values)
            for giant, terms in zip(plan.giants, out, strict=True):
                if not terms:
                    continue
                inner = _weighted(diagonals.values, [(turned[i, b], d) for i, b, d in terms])
                if giant:
                    added = gadget + self.variances.divided(special, both=False)
                    inner = self._noise(_turned(inner, giant), added, kind.scale)
                total += inner
            outs.append(Noisy(kind, self._noise(total, self.variances.divided(special), kind.scale)))
        return outs

    def sum_plain(
        self, inputs: Sequence[Noisy], plain: NoisyPlain, terms: Sequence[Sequence[tuple[int, int]]]
    ) -> list[Noisy]:
        """Exact but for the weights."""
        kind = rules.sum_plain(self.params, [x.kind for x in inputs], plain.kind)
        return [Noisy(kind, _weighted(plain.values, [(inputs[i].values, d) for i, d in out])) for out in terms]

    def sum_periodic(self, inputs: Sequence[Noisy], plain: NoisyPlain, outs: int) -> list[Noisy]:
        """Exact but for the weights."""
        count, period = plain.values.shape[1:]
        kind = rules.sum_periodic(self.params, [x.kind for x in inputs], plain.kind, outs)
        stacked = np.stack([x.values for x in inputs])
        cut = stacked.reshape(count, -1, stacked.shape[-1] // period, period)
        sums = np.einsum("aif,ibgf->abgf", plain.values, cut, optimize=True)
        return [Noisy(kind, total.reshape(stacked.shape[1:])) for total in sums]


def _turned(x: Real, steps: int) -> Real:
    return np.roll(x, -steps, axis=-1) if steps else x


def _weighted(weights: Real, products: Sequence[tuple[Real, int]]) -> Real:
    total = np.zeros_like(products[0][0])
    for values, index in products:
        total += weights[index] * values
    return total


class Simulated(NamedTuple):
    """Slots `[samples, slots]` with noise."""

    outputs: list[Real]
    """The program's outputs, blinded as an evaluator does."""
    registers: list[Real]
    """The registers that were asked for."""


def simulate(
    program: Program,
    weights: Sequence[NDArray[np.floating[Any]]],
    inputs: Sequence[Real],
    registers: Sequence[int] = (),
    *,
    seed: int = 0,
) -> Simulated:
    """The program on slots in the clear, with the noise that encryption would give them."""
    on = NoisyOperations(program.params, seed)
    sent = [on.encrypted(declared.kind, values) for declared, values in zip(program.inputs, inputs, strict=True)]
    rounded = [on.weight(declared, values) for declared, values in zip(program.weights, weights, strict=True)]
    run = cast(Callable[..., list[Noisy]], interpreter.interpret)
    watched = with_outputs(program, (*program.outputs, *registers))
    outs = run(on, watched, watched.checked, sent, rounded)
    count = len(program.outputs)
    return Simulated([on.blinded(out).values for out in outs[:count]], [out.values for out in outs[count:]])


def with_outputs(program: Program, registers: Sequence[int]) -> Program:
    """The same program that gives other registers out: for looking at every layer's error."""
    return replace(program, outputs=tuple(registers))


__all__ = ["NoisyOperations", "Simulated", "Variances", "simulate", "with_outputs"]
