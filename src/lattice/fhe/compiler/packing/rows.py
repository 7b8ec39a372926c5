"""Linear and logistic models on thousands of rows: one feature in a ciphertext, one row in a coefficient.

The weights are then numbers, the same in every coefficient, and a model is a matrix product with scalars: one
multiplication for each feature, row and half of a ciphertext, no transform, no rotation, no key. Every coefficient of
the result is a score; encoding on the client is a transposition.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.parameters import Parameters, parameters
from lattice.fhe.compiler.client_part import After, Before, ClientPart, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.packing.affine import Affine, affine
from lattice.fhe.compiler.packing.linear_scales import Scales, choose_scales, to_unit
from lattice.fhe.compiler.report_data import LayerReport, Report, TotalsReport
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.program import Input, Program, Weight, scale_text

MIN_LOG_N, MAX_LOG_N = 11, 14
MAX_FEATURES = 4096
MAX_OUTPUTS = 256


def compile_rows(
    graph: Graph,
    *,
    rows: int,
    low: Real,
    high: Real,
    before: Sequence[Before] = (),
    after: Sequence[After] = (),
    largest: float | None = None,
) -> Compiled:
    """A graph of linear steps on at least `rows` rows at once (a power of two, 2048 to 16,384), under one 50-bit prime.
    Ranges as in `coefficients.compile_linear`."""
    _require_room(prod(graph.input_shape), prod(graph.output_shape), rows)
    model = affine(graph)
    params = parameters(log_n=max(MIN_LOG_N, (rows - 1).bit_length()), base_bits=50, scale_bits=20)
    unit = to_unit(np.ravel(low), np.ravel(high))
    model = model.of_unit_features(np.array(unit.middle), np.array(unit.exponents, dtype=np.float64))
    length = float(np.linalg.norm(model.weights, axis=1).max())
    scales = choose_scales(params, model, length, largest)
    steps = (*before, unit)
    client = _client(params, graph.input_shape, model, scales, steps, tuple(after), np.ravel(low), np.ravel(high))
    bias = [np.full((1, params.n), value) for value in model.bias]
    return Compiled(_program(params, model, scales), (model.weights[:, :, None], *bias), client, _report(model, scales))


def _require_room(features: int, outputs: int, rows: int) -> None:
    wrong = ""
    if not 1 <= rows <= 1 << MAX_LOG_N:
        wrong = f"{rows} rows at once (1 to {1 << MAX_LOG_N} fit)"
    elif not 1 <= features <= MAX_FEATURES:
        wrong = f"{features} features (1 to {MAX_FEATURES} fit)"
    elif not 1 <= outputs <= MAX_OUTPUTS:
        wrong = f"{outputs} outputs (1 to {MAX_OUTPUTS} fit)"
    if wrong:
        raise LatticeError("model_unsupported", f"This packing has one ciphertext for each feature: not for {wrong}.")


def _program(params: Parameters, model: Affine, scales: Scales) -> Program:
    features, weights, results = (
        scale_text(Fraction(1 << b)) for b in (scales.features, scales.weights, scales.result)
    )
    count, outs = model.features, model.outputs
    first = count + 1
    steps: list[ops.Instruction] = [ops.LoadInput(out=k, input=k) for k in range(count)]
    steps.append(ops.LoadWeight(out=count, weight=0))
    sums = tuple(range(first, first + outs))
    steps.append(ops.SumPeriodic(outs=sums, inputs=tuple(range(count)), plain=count))
    for number, total in enumerate(sums):
        plain = first + outs + 2 * number
        steps.append(ops.LoadWeight(out=plain, weight=1 + number))
        steps.append(ops.AddPlain(out=plain + 1, a=total, plain=plain))
    numbers = Weight(level=0, scale=weights, count=outs * count, encoding=Encoding.CONSTANT, period=1)
    bias = Weight(level=0, scale=results, encoding=Encoding.COEFFICIENTS)
    return Program(
        params,
        tuple(Input(level=0, scale=features, encoding=Encoding.COEFFICIENTS) for _ in range(count)),
        (numbers, *[bias] * outs),
        tuple(steps),
        tuple(first + outs + 2 * number + 1 for number in range(outs)),
    )


def _client(
    params: Parameters,
    shape: tuple[int, ...],
    model: Affine,
    scales: Scales,
    before: tuple[Before, ...],
    after: tuple[After, ...],
    low: Real,
    high: Real,
) -> ClientPart:
    row, kind = np.arange(params.n, dtype=np.int32), Encoding.COEFFICIENTS
    features, results = (scale_text(Fraction(1 << bits)) for bits in (scales.features, scales.result))
    return ClientPart(
        feature_shape=shape,
        batch=params.n,
        before=before,
        inputs=tuple(Packed(row * model.features + k, 0, features, kind) for k in range(model.features)),
        outputs=tuple(Packed(row * model.outputs + k, 0, results, kind) for k in range(model.outputs)),
        after=after,
        results=model.outputs,
        low=low,
        high=high,
    )


def _report(model: Affine, scales: Scales) -> dict[str, Any]:
    layer = LayerReport(
        "linear",
        f"linear {model.features} → {model.outputs}, a row in each coefficient",
        shape=(model.outputs,),
        diagonals=model.features * model.outputs,
        ciphertexts=model.outputs,
        error=scales.error,
    )
    totals = TotalsReport(diagonals=layer.diagonals, error=scales.error)
    return Report(model="linear", goal="throughput", layers=(layer,), totals=totals).to_dict()
