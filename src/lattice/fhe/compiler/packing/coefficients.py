"""Linear and logistic models in coefficients: one plaintext product, no evaluation key, several rows for the price of
one.

Row r of d features lies in coefficients r·B … r·B + d − 1, with B = d·outputs; the weights of output j are stored
reversed, w_j[i] as coefficient j·d + d − 1 − i. In the product, x_r[i]·w_j[i'] falls on r·B + j·d + d − 1 + (i − i'),
and since |i − i'| < d, coefficient r·B + j·d + d − 1 collects i = i' of exactly this row and output: y_j(x_r). What
runs past X^N comes back below coefficient d − 1, where no result lies. Everything else in the product mixes weights
and features, so only the result coefficients leave (`lattice.fhe.coefficients`).

More features than coefficients take several input ciphertexts whose products are added; more outputs than fit take
several weight polynomials and output ciphertexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.presets import preset
from lattice.fhe.compiler.client_part import After, Before, ClientPart, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.packing.affine import Affine, affine
from lattice.fhe.compiler.packing.linear_scales import Scales, choose_scales, to_unit
from lattice.fhe.compiler.report_data import LayerReport, Report, TotalsReport
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.program import Input, Program, Weight, scale_text

MAX_INPUTS = 32
MAX_OUTPUTS = 64
"""Ciphertexts: 65,536 features, and 64·N/features outputs."""


class Layout(NamedTuple):
    """Where features, weights and results lie; see the module."""

    n: int
    features: int
    outputs: int

    @property
    def width(self) -> int:
        """d: features of one row in one ciphertext."""
        return min(self.features, self.n)

    @property
    def inputs(self) -> int:
        """Input ciphertexts."""
        return ceil(self.features / self.n)

    @property
    def together(self) -> int:
        """Outputs in one ciphertext."""
        return min(self.outputs, self.n // self.width)

    @property
    def replies(self) -> int:
        """Output ciphertexts."""
        return ceil(self.outputs / self.together)

    @property
    def rows(self) -> int:
        """Rows in one query."""
        return self.n // (self.width * self.together)

    def feature_entries(self, number: int) -> NDArray[np.int32]:
        """What the client puts into the coefficients of input `number`."""
        out = np.full(self.n, -1, dtype=np.int32)
        width = min(self.width, self.features - number * self.n)
        for row in range(self.rows):
            start = row * self.width * self.together
            out[start : start + width] = row * self.features + number * self.n + np.arange(width)
        return out

    def result_entries(self, number: int) -> NDArray[np.int32]:
        """Which result lies in which coefficient of output `number`."""
        out = np.full(self.n, -2, dtype=np.int32)
        outputs = self._outputs_of(number)
        for row in range(self.rows):
            at = row * self.width * self.together + np.arange(len(outputs)) * self.width + self.width - 1
            out[at] = row * self.outputs + outputs
        return out

    def weight_polynomial(self, model: Affine, number: int, of_input: int) -> Real:
        """The plaintext that takes input `of_input` to output `number`."""
        out = np.zeros(self.n)
        columns = slice(of_input * self.n, min((of_input + 1) * self.n, self.features))
        for place, output in enumerate(self._outputs_of(number)):
            weights = model.weights[output, columns]
            end = (place + 1) * self.width
            out[end - len(weights) : end] = weights[::-1]
        return out

    def length(self, model: Affine) -> float:
        """The norm of the longest row of weight polynomials."""
        squares = (model.weights**2).sum(axis=1)
        return float(np.sqrt(np.add.reduceat(squares, np.arange(0, self.outputs, self.together)).max()))

    def bias_polynomial(self, model: Affine, number: int) -> Real:
        """The bias at every result."""
        places = self.result_entries(number)
        return np.where(places >= 0, model.bias[places % self.outputs], 0.0)

    def _outputs_of(self, number: int) -> NDArray[np.int64]:
        return np.arange(number * self.together, min((number + 1) * self.together, self.outputs))


def compile_linear(
    graph: Graph,
    *,
    low: Real,
    high: Real,
    before: Sequence[Before] = (),
    after: Sequence[After] = (),
    largest: float | None = None,
    params: ParameterSet | None = None,
) -> Compiled:
    """A graph of linear steps as a program at N = 2048 under one 50-bit prime.

    `low` and `high` are the calibrated ranges of the graph's input `[features]`, `largest` the largest result that
    calibration saw, if it ran. Results up to twice as large are still right.
    """
    params = params or preset("linear-2048")
    layout = Layout(params.n, prod(graph.input_shape), prod(graph.output_shape))
    _require_room(layout)
    model = affine(graph)
    unit = to_unit(np.ravel(low), np.ravel(high))
    model = model.of_unit_features(np.array(unit.middle), np.array(unit.exponents, dtype=np.float64))
    scales = choose_scales(params, model, layout.length(model), largest)
    return Compiled(
        _program(params, layout, scales),
        _weights(layout, model),
        _client(graph, layout, scales, (*before, unit), tuple(after), np.ravel(low), np.ravel(high)),
        _report(layout, scales),
    )


def _require_room(layout: Layout) -> None:
    if not (layout.features and layout.outputs):
        raise LatticeError("model_unsupported", "The model has no features or no outputs.")
    if layout.inputs > MAX_INPUTS or layout.replies > MAX_OUTPUTS:
        raise LatticeError(
            "model_unsupported",
            f"{layout.features} features and {layout.outputs} outputs take {layout.inputs} query and {layout.replies} "
            f"reply ciphertexts; this packing makes at most {MAX_INPUTS} and {MAX_OUTPUTS}.",
        )


def _program(params: ParameterSet, layout: Layout, scales: Scales) -> Program:
    """For each output the sum of its products, then its bias; weights in the order in which they are loaded."""
    kind = Encoding.COEFFICIENTS
    features, weights, results = (
        scale_text(Fraction(1 << b)) for b in (scales.features, scales.weights, scales.result)
    )
    steps: list[ops.Instruction] = [ops.LoadInput(out=k, input=k) for k in range(layout.inputs)]
    declared: list[Weight] = []
    outputs: list[int] = []

    def load(scale: str) -> int:
        declared.append(Weight(level=0, scale=scale, encoding=kind))
        return add(ops.LoadWeight, weight=len(declared) - 1)

    def add(operation: Any, **fields: int) -> int:
        steps.append(operation(out=len(steps), **fields))
        return len(steps) - 1

    for _ in range(layout.replies):
        total = -1
        for k in range(layout.inputs):
            product = add(ops.MultiplyPlain, a=k, plain=load(weights))
            total = product if total < 0 else add(ops.Add, a=total, b=product)
        outputs.append(add(ops.AddPlain, a=total, plain=load(results)))
    inputs = tuple(Input(level=0, scale=features, encoding=kind) for _ in range(layout.inputs))
    return Program(params, inputs, tuple(declared), tuple(steps), tuple(outputs))


def _weights(layout: Layout, model: Affine) -> tuple[Real, ...]:
    out = []
    for number in range(layout.replies):
        out += [layout.weight_polynomial(model, number, k)[None] for k in range(layout.inputs)]
        out.append(layout.bias_polynomial(model, number)[None])
    return tuple(out)


def _client(
    graph: Graph,
    layout: Layout,
    scales: Scales,
    before: tuple[Before, ...],
    after: tuple[After, ...],
    low: Real,
    high: Real,
) -> ClientPart:
    features, results = (scale_text(Fraction(1 << bits)) for bits in (scales.features, scales.result))
    kind = Encoding.COEFFICIENTS
    return ClientPart(
        feature_shape=graph.input_shape,
        batch=layout.rows,
        before=before,
        inputs=tuple(Packed(layout.feature_entries(k), 0, features, kind) for k in range(layout.inputs)),
        outputs=tuple(Packed(layout.result_entries(k), 0, results, kind) for k in range(layout.replies)),
        after=after,
        results=layout.outputs,
        low=low,
        high=high,
    )


def _report(layout: Layout, scales: Scales) -> dict[str, Any]:
    layer = LayerReport(
        "linear",
        f"linear {layout.features} → {layout.outputs}, in coefficients",
        shape=(layout.outputs,),
        diagonals=layout.inputs * layout.replies,
        ciphertexts=layout.replies,
        error=scales.error,
    )
    totals = TotalsReport(diagonals=layer.diagonals, error=scales.error)
    return Report(model="linear", layers=(layer,), totals=totals).to_dict()
