"""One function of a weighted sum, evaluated by squarings alone: logistic regression with its sigmoid under encryption.

A single query leaves nearly all slots empty. Here they hold many polynomials of the same number t: slot g starts from
u = a_g·t + b_g, which costs nothing, since the first layer's weights may differ from slot to slot, and four times
becomes u² + c_g. So every slot holds another polynomial of degree 16 with four relinearisations, the fewest that reach
this degree (Paterson–Stockmeyer takes six and needs constants at every level). Their weighted mean is the fitted
function. It costs no rotation either: the mean over all slots is coefficient 0 of the plaintext, so the product with
the weights is handed out as coefficients, of which blinding keeps that one. Rounding errors are averaged over all slots
too, and shrink by the root of their number.

Moduli are few and wide. The scales of u before and after the squarings are (log2)

    33 —square→ 66 —rescale 49→ 17 —square→ 34 —square→ 68 —rescale 50→ 18 —square→ 36 —weights→ 46

over a base prime, one of 50 bits and one of 49: three limbs where a level for each product would take five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, log2, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.parameters import Parameters, parameters
from lattice.fhe.ckks.security import Security, max_log_qp
from lattice.fhe.compiler.chebyshev import Function, evenly
from lattice.fhe.compiler.circuit import Slots, Stages
from lattice.fhe.compiler.client_part import After, Before, ClientPart, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.fitting import unfitted
from lattice.fhe.compiler.graph import Graph, Node, Real
from lattice.fhe.compiler.operations import Indices, Series
from lattice.fhe.compiler.packing.affine import Affine, affine, is_affine
from lattice.fhe.compiler.packing.layout import power_of_two
from lattice.fhe.compiler.report_data import LayerReport, Report, TotalsReport
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.program import Input, Program, Weight, scale_text
from lattice.fhe.ring.modulus import PRIME_BITS

SQUARINGS = 4
DEGREE = 1 << SQUARINGS
LEAST, MOST = 32, 256
"""Polynomials of one number: with fewer than the first, errors of single slots weigh too much."""
LOG_N = 13
FEATURES, WEIGHTS = 16, 17
"""log2 of the scales of features and of the first weights."""
LAST, LEAST_LAST = 10, 7
"""The same of the last weights, and the least where results are large: rounding them shifts results."""
UPPER, MIDDLE = 49, 50
BEFORE_LAST = 2 * (4 * (2 * (FEATURES + WEIGHTS) - UPPER) - MIDDLE)
"""log2 of the scale of the last squares."""
SIGN_BITS = 1
RESCALING = sqrt((1 << LOG_N) / 2 * (1 + (2 << LOG_N) / 3) / 12)
"""Standard deviation that a rescaling adds to a slot, in integers: see `levels.noise`."""
ROUNDINGS = (
    RESCALING / 2.0 ** (2 * (FEATURES + WEIGHTS) - UPPER),
    0.0,
    RESCALING / 2.0 ** (BEFORE_LAST / 2),
)
FRESH = sqrt((1 << LOG_N) / 2 * (21 / 2 + 1 / 12))
"""The same of a fresh ciphertext."""
RADICES = (8, 4, 2)
"""Of the sum over features: fewer stages are quicker and take more keys."""
POINTS, SEEDS = 513, 16


class Single(NamedTuple):
    """A graph that is one function between two affine maps, the second with one result."""

    first: Affine
    node: Node
    last: Affine


class Family(NamedTuple):
    """Polynomials u ↦ u² + c …, `[count]` each; the weights say how they add up."""

    factor: Real
    shift: Real
    constants: tuple[Real, ...]
    """After the first, second and third squaring."""

    def values(self, t: Real, error: float = 0.0) -> tuple[Real, Real]:
        """For numbers in [−1, 1] what the polynomials are expected to make of them, and the variance of that, both
        `[points, count]`. `error` is that of t; a rescaling adds its own. A squared error is not 0 in the mean, and
        what all slots have in common does not average out: it belongs to the fit."""
        u = self.factor * t[:, None] + self.shift
        variance = np.full_like(u, 1.0) * (self.factor * error) ** 2
        for constant, rounding in zip(self.constants, ROUNDINGS, strict=True):
            u, variance = u * u + variance + constant, (4.0 * u * u + 2.0 * variance) * variance + rounding**2
        return np.asarray(u * u + variance), np.asarray((4.0 * u * u + 2.0 * variance) * variance)


def single(graph: Graph) -> Single | None:
    """The graph in this form, or None."""
    found = [node for node in graph.nodes if unfitted(node.operation)]
    if len(found) != 1 or prod(graph.output_shape) != 1 or len(found[0].inputs) != 1:
        return None
    node, behind = found[0], {found[0].name}
    after: list[Node] = []
    for other in graph.nodes:
        if behind & set(other.inputs):
            if not set(other.inputs) <= behind:
                return None
            behind.add(other.name)
            after.append(other)
    before = tuple(other for other in graph.nodes if other.name not in behind)
    shape = graph.shapes()[node.name]
    first = Graph(graph.input, graph.input_shape, before, node.inputs[0])
    last = Graph(node.name, shape, tuple(after), graph.output)
    if not (before and is_affine(first) and is_affine(last)):
        return None
    return Single(affine(first), node, affine(last) if after else Affine(np.ones((1, 1)), np.zeros(1)))


def room(form: Single, slots: int = 1 << (LOG_N - 1)) -> int:
    """How many polynomials of each of its numbers there is room for; 0 where that is too few."""
    count = slots // power_of_two(form.first.features) // form.first.outputs
    return min(count, MOST) if count >= LEAST else 0


def family(count: int, seed: int) -> Family:
    """So many polynomials that stay within [−2, 2] before the last squaring; the same every time."""
    random, t = np.random.default_rng(seed), np.linspace(-1.0, 1.0, POINTS)
    rows: list[list[float]] = []
    while len(rows) < count:
        factor = random.uniform(0.3, 2.0)
        row = [factor, random.uniform(-1.0, 1.0) * (2.0 - factor)]
        u = factor * t + row[1]
        for _ in range(SQUARINGS - 1):
            square = u * u
            low, high = -2.0 - square.min(), min(0.5, 2.0 - square.max())
            low = max(-2.0, low)
            row.append(random.uniform(low, high) if low < high else low)
            u = square + row[-1]
        if np.abs(u).max() <= 2.0 + 1e-9:
            rows.append(row)
    factors, shifts, *constants = np.array(rows).T
    return Family(factors, shifts, tuple(constants))


def error_of(first: Affine) -> float:
    """Standard deviation of the largest number of features in [−1, 1], encrypted."""
    return FRESH / 2.0**FEATURES * float(np.linalg.norm(first.weights, axis=1).max())


class Summed(NamedTuple):
    """The function as a weighted sum of a family."""

    family: Family
    weights: Real
    constant: float
    series: Series
    """The same polynomial."""
    error: float
    """Standard deviation at the worst number, if every polynomial were in one slot only."""


def summed(
    function: Function, interval: tuple[float, float], seen: tuple[float, float], count: int, error: float
) -> Summed:
    """The weights with the least largest error over the calibrated range; `error` is that of a number, encrypted."""
    low, high = interval
    t = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
    x = (low + high + t * (high - low)) / 2
    wanted = evenly(chebyshev.chebvander(t, DEGREE), function(x), x, seen)
    series = Series(tuple(float(value) for value in wanted), interval)
    scaled = 2.0 * error / (high - low)
    sums = (_as_sum(series, family(count, seed), t, scaled) for seed in range(SEEDS))
    return min(sums, key=lambda found: found.error)


def _as_sum(series: Series, made: Family, t: Real, error: float) -> Summed:
    """Of all weights that give the series those with the least error, of slots that err independently."""
    values, variance = made.values(t, error)
    each = np.sqrt(variance.mean(axis=0))
    terms = chebyshev.chebfit(t, values, DEGREE) / each
    scaled, *_ = np.linalg.lstsq(terms[1:], np.array(series.coefficients[1:]), rcond=None)
    weights = scaled / each
    constant = series.coefficients[0] - float(terms[0] @ scaled)
    return Summed(made, weights, constant, series, float(np.sqrt((variance * weights**2).sum(axis=1).max())))


@dataclass(frozen=True, eq=False)
class Layout:
    """What lies in which slot: feature i in slots i·stride + g, polynomial g of one of the numbers."""

    first: Affine
    """Of features in [−1, 1]."""
    last: Affine
    fitted: Summed
    slots: int = 1 << (LOG_N - 1)

    @property
    def stride(self) -> int:
        """Slots of one feature."""
        return self.slots // power_of_two(self.first.features)

    @cached_property
    def _slot(self) -> tuple[Indices, Indices, Indices]:
        """Feature, number and polynomial of each slot; the number is −1 where a slot is empty."""
        feature, group = np.divmod(np.arange(self.slots), self.stride)
        number, polynomial = np.divmod(group, len(self.fitted.weights))
        return feature, np.where(number < self.first.outputs, number, -1), polynomial

    @property
    def entries(self) -> Slots:
        """What the client puts where."""
        feature = self._slot[0]
        return np.where(feature < self.first.features, feature, -1).astype(np.int32)

    def of_polynomials(self, values: Real) -> Real:
        """One value for each polynomial, in its slots; zeros in empty ones."""
        _, number, polynomial = self._slot
        return np.where(number >= 0, values[polynomial], 0.0)

    @property
    def weights(self) -> Real:
        """Of the first layer: in slot g of any feature a_g·t comes together."""
        feature, number, _ = self._slot
        low, high = self.fitted.series.interval
        held = self.first.weights[number, np.minimum(feature, self.first.features - 1)]
        return (
            self.of_polynomials(self.fitted.family.factor) * np.where(self.entries >= 0, held, 0.0) * 2 / (high - low)
        )

    @property
    def shift(self) -> Real:
        """What is added to it."""
        low, high = self.fitted.series.interval
        t = (2.0 * self.first.bias - low - high) / (high - low)
        return self.of_polynomials(self.fitted.family.factor) * t[self._slot[1]] + self.of_polynomials(
            self.fitted.family.shift
        )

    @property
    def last_weights(self) -> Real:
        """Their mean over all slots, with the polynomials' values, is the result without its constant."""
        return np.asarray(self.of_polynomials(self.fitted.weights) * self.last.weights[0, self._slot[1]] * self.stride)

    @property
    def constant(self) -> float:
        """Of the result."""
        return float(self.last.bias[0] + self.fitted.constant * self.last.weights.sum())

    def fold(self, radix: int) -> Stages:
        """The sum over features."""
        stages, reach = [], self.stride
        while reach < self.slots:
            digits = min(radix, self.slots // reach)
            stages.append(tuple(digit * reach for digit in range(1, digits)))
            reach *= digits
        return tuple(stages)


def compile_squares(
    layout: Layout,
    *,
    shape: tuple[int, ...],
    low: Real,
    high: Real,
    before: Sequence[Before],
    after: Sequence[After],
    largest: float,
    radix: int,
    security: Security = Security.CLASSICAL,
) -> Compiled:
    """The program. Features are in [−1, 1] after `before`; `low` and `high` are what clients are warned by, `largest`
    bounds the result."""
    params = _parameters(largest, security)
    program, weights = _program(params, layout, radix, last_bits(largest))
    (kind,) = program.checked.outputs
    entries = np.where(np.arange(params.n) == 0, 0, -2).astype(np.int32)
    client = ClientPart(
        feature_shape=shape,
        batch=1,
        before=tuple(before),
        inputs=(Packed(layout.entries, params.max_level, program.inputs[0].scale),),
        outputs=(Packed(entries, kind.level, scale_text(kind.scale), Encoding.COEFFICIENTS),),
        after=tuple(after),
        results=1,
        low=low,
        high=high,
    )
    return Compiled(program, weights, client, _report(layout, radix))


def result_bits(largest: float) -> int:
    """That results of this size take, with their sign."""
    return ceil(log2(max(largest, 1.0))) + SIGN_BITS


def last_bits(largest: float) -> int:
    """log2 of the scale of the last weights."""
    bits = min(LAST, PRIME_BITS - BEFORE_LAST - result_bits(largest))
    if bits < LEAST_LAST:
        raise LatticeError("model_unsupported", f"Results of up to {largest:.3g} do not fit below one prime.")
    return bits


def _parameters(largest: float, security: Security) -> Parameters:
    """Two special primes with what the bound leaves; `parameters_insecure` where results are too large."""
    base = BEFORE_LAST + last_bits(largest) + result_bits(largest)
    left = max_log_qp(LOG_N, security) - base - MIDDLE - UPPER
    special = tuple(min(PRIME_BITS, (left + k) // 2) for k in (1, 0))
    return parameters(
        log_n=LOG_N,
        base_bits=base,
        level_bits=(MIDDLE, UPPER),
        special_bits=special,
        scale_bits=FEATURES + WEIGHTS,
        security=security,
    )


class _Emitter:
    """Instructions and weights as they come; registers are numbered by `step`."""

    def __init__(self) -> None:
        self.instructions: list[ops.Instruction] = []
        self.declared: list[Weight] = []
        self.values: list[Real] = []

    def step(self, operation: Any, **fields: Any) -> int:
        """One instruction."""
        self.instructions.append(operation(out=len(self.instructions), **fields))
        return len(self.instructions) - 1

    def plain(self, values: Real, level: int, scale: Fraction) -> int:
        """A plaintext, loaded."""
        self.declared.append(Weight(level=level, scale=scale_text(scale)))
        self.values.append(values[None, :])
        return self.step(ops.LoadWeight, weight=len(self.values) - 1)

    def squared(self, x: int) -> int:
        """x² with two components, not rescaled."""
        return self.step(ops.Relinearise, a=self.step(ops.Multiply, a=x, b=x))


def _program(params: Parameters, layout: Layout, radix: int, last: int) -> tuple[Program, tuple[Real, ...]]:
    to, (middle, upper) = _Emitter(), (prod(group) for group in params.levels)
    constants = [layout.of_polynomials(each) for each in layout.fitted.family.constants]
    scale = Fraction(1 << (FEATURES + WEIGHTS))
    u = to.step(ops.LoadInput, input=0)
    u = to.step(ops.MultiplyPlain, a=u, plain=to.plain(layout.weights, 2, Fraction(1 << WEIGHTS)))
    u = to.step(ops.SumSlots, a=u, stages=layout.fold(radix))
    u = to.step(ops.AddPlain, a=u, plain=to.plain(layout.shift, 2, scale))
    u = to.step(ops.Rescale, a=to.squared(u))
    scale = scale**2 / upper
    u = to.step(ops.AddPlain, a=u, plain=to.plain(constants[0], 1, scale))
    u, scale = to.squared(u), scale**2
    u = to.step(ops.AddPlain, a=u, plain=to.plain(constants[1], 1, scale))
    u, scale = to.step(ops.Rescale, a=to.squared(u)), scale**2 / middle
    u = to.step(ops.AddPlain, a=u, plain=to.plain(constants[2], 0, scale))
    u = to.step(ops.MultiplyPlain, a=to.squared(u), plain=to.plain(layout.last_weights, 0, Fraction(1 << last)))
    u = to.step(ops.AddConstant, a=u, value=layout.constant)
    features = Input(level=2, scale=scale_text(Fraction(1 << FEATURES)))
    return Program(params, (features,), tuple(to.declared), tuple(to.instructions), (u,)), tuple(to.values)


def _report(layout: Layout, radix: int) -> dict[str, Any]:
    count, rotations = len(layout.fitted.weights), sum(map(len, layout.fold(radix)))
    name = f"{count} polynomials of degree {DEGREE}, by squarings"
    layer = LayerReport(
        "squares", name, shape=(1,), rotations=rotations, diagonals=2, products=SQUARINGS, ciphertexts=1
    )
    totals = TotalsReport(rotations=rotations, diagonals=2, products=SQUARINGS)
    return Report(model="squares", layers=(layer,), totals=totals).to_dict()
