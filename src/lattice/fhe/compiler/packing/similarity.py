"""Similarity search: one encrypted query against many rows, every score returned, the best chosen by the client.

The query q of d values (padded to P, a power of two) fills the slots periodically. Slot r of the result for a block of
S rows is Σ_k D_k[r]·q[(r + k) mod P] with D_k[r] = row_r[(r + k) mod P]: P rotations of the query, made once for all
blocks from few keys (`rotation_tree`), and one product for each block and rotation with no rotation of results, no
relinearisation and no level. A database of 50,000 × 128 has 25 blocks at N = 2^12.

The same with the rows encrypted under the client's key: the products then have three components, and their sum is
relinearised once for each block, so that a reply has the usual form. The owner brings its rows to length 1.

Rows that do not exist are zeros, so scores of unused slots are zero; blinding treats those slots as unused besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from math import ceil, floor, hypot, log2, prod, sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import Parameters, ParameterSet, parameters
from lattice.fhe.compiler.client_part import (
    After,
    AppendSquaredLength,
    Before,
    ClientPart,
    Largest,
    Normalise,
    NormaliseRows,
    Packed,
    ToUnit,
)
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.packing.affine import Affine, affine
from lattice.fhe.compiler.packing.linear_scales import to_unit
from lattice.fhe.compiler.packing.rotation_tree import Tree, emit, plan_tree
from lattice.fhe.compiler.report_data import LayerReport, Report, TotalsReport
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.program import Input, Program, Weight, scale_text

MAX_WIDTH = 512
MAX_ROWS = 1 << 21
KEY_BYTES = 2 << 20
"""Rotation keys, unless the caller allows more: beyond this, time hardly falls."""
MARGIN_BITS = 1
"""Room above the largest score that calibration saw; lengths bound a cosine, so it needs none."""
SUM_BLOCKS = 64
"""Blocks in one instruction: enough that the rotated queries are read from cache."""
ANYTHING = 1e30
"""The range of a query that is brought to length 1: every direction is fine."""
SEARCH_REPLIES, SMALL_RING = 16, 2048
METRICS = ("dot", "cosine", "euclidean")


@cache
def search_parameters() -> Parameters:
    """One level of 50 bits and one key switch, within the 106 bits of N = 2^12."""
    return parameters(log_n=12, base_bits=50, special_bits=[28, 27], scale_bits=24)


class _Scales(NamedTuple):
    query: int
    rows: int
    error: float


class _Layout(NamedTuple):
    slots: int
    width: int
    rows: int

    @property
    def period(self) -> int:
        return 1 << (self.width - 1).bit_length()

    @property
    def blocks(self) -> int:
        return ceil(self.rows / self.slots)

    def query_entries(self) -> NDArray[np.int32]:
        place = np.arange(self.slots) % self.period
        return np.where(place < self.width, place, -1).astype(np.int32)

    def row_entries(self, block: int, turn: int) -> NDArray[np.int32]:
        """For each slot of D_turn the entry of the flattened `[rows, width]`, −1 where there is none."""
        row = block * self.slots + np.arange(self.slots)
        column = (np.arange(self.slots) + turn) % self.period
        return np.where((row < self.rows) & (column < self.width), row * self.width + column, -1).astype(np.int32)

    def score_entries(self, block: int) -> NDArray[np.int32]:
        row = block * self.slots + np.arange(self.slots)
        return np.where(row < self.rows, row, -1).astype(np.int32)


def compile_similarity(
    vectors: ArrayLike, *, metric: str = "cosine", best: int | None = 10, max_key_bytes: int = KEY_BYTES
) -> Compiled:
    """A search among plain vectors `[rows, width]`; with `best` the client keeps so many, else it gets every score.

    `cosine`: rows and query are brought to length 1. `dot`: as they are, of queries no longer than the longest row.
    `euclidean`: squared distances, for which the query carries its own squared length.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if metric not in METRICS or rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise LatticeError("model_unsupported", f"Vectors are finite numbers [rows, width]; metrics: {METRICS}.")
    lengths = np.linalg.norm(rows, axis=1)
    longest = float(lengths.max()) or 1.0
    before: tuple[Before, ...] = ()
    model, largest, reach = Affine(rows, np.zeros(len(rows))), 2 * longest**2, np.abs(rows).max(axis=0)
    low, high = -reach, reach
    if metric == "cosine":
        before, largest = (Normalise(),), 1.0
        model = Affine(rows / np.where(lengths > 0, lengths, 1.0)[:, None], np.zeros(len(rows)))
        low, high = -np.ones(rows.shape[1]), np.ones(rows.shape[1])
    elif metric == "euclidean":
        before, largest = (AppendSquaredLength(),), 8 * longest**2
        model = Affine(np.column_stack([-2.0 * rows, np.ones(len(rows))]), lengths**2)
        low, high = np.append(low, 0.0), np.append(high, longest**2)
    after = (Largest(min(best, len(rows)), smallest=metric == "euclidean"),) if best else ()
    _require_size(model.features, model.outputs)
    width = rows.shape[1]
    made = _compile(model, (width,), low, high, before, after, largest, max_key_bytes)
    return replace(made, client=_of_any_length(made.client)) if metric == "cosine" else made


def is_search(graph: Graph) -> bool:
    """Whether a linear graph has so many outputs that replies in coefficients (N numbers for N/features results) would
    be larger than rotation keys are: a nearest-neighbour model, a projection to thousands of classes."""
    features, outputs = prod(graph.input_shape), prod(graph.output_shape)
    return features <= MAX_WIDTH and features * outputs > SEARCH_REPLIES * SMALL_RING


def compile_scores(
    graph: Graph,
    *,
    low: Real,
    high: Real,
    before: Sequence[Before] = (),
    after: Sequence[After] = (),
    largest: float | None = None,
    max_key_bytes: int = KEY_BYTES,
) -> Compiled:
    """Any graph of linear steps with many outputs, for instance an imported nearest-neighbour model."""
    _require_size(prod(graph.input_shape), prod(graph.output_shape))
    model = affine(graph)
    reach = 2.0**MARGIN_BITS * largest if largest else np.inf
    return _compile(
        model, graph.input_shape, np.ravel(low), np.ravel(high), tuple(before), tuple(after), reach, max_key_bytes
    )


def _compile(
    model: Affine,
    shape: tuple[int, ...],
    low: Real,
    high: Real,
    before: tuple[Before, ...],
    after: tuple[After, ...],
    largest: float,
    max_key_bytes: int,
) -> Compiled:
    params = search_parameters()
    layout = _Layout(params.slots, model.features, model.outputs)
    tree = _tree(params, layout, max_key_bytes)
    unit = to_unit(low, high)
    if not _is_identity(unit):
        model = model.of_unit_features(np.array(unit.middle), np.array(unit.exponents, dtype=np.float64))
    row_length = float(np.linalg.norm(model.weights, axis=1).max())
    scales = _scales(params, min(largest, model.reach), row_length, len(tree.radices))
    has_bias = bool(np.any(model.bias))
    program = _plain_program(params, layout, tree, scales, has_bias)
    steps = before if _is_identity(unit) else (*before, unit)
    client = _client_part(layout, scales, shape, steps, after, low[: prod(shape)], high[: prod(shape)])
    return Compiled(program, _plain_weights(layout, model, has_bias), client, _report(layout, scales))


def _of_any_length(part: ClientPart) -> ClientPart:
    anything = np.full(part.low.shape, ANYTHING)
    return replace(part, low=-anything, high=anything)


def _require_size(width: int, rows: int) -> None:
    if not 0 < width <= MAX_WIDTH or not 0 < rows <= MAX_ROWS:
        raise LatticeError(
            "model_unsupported",
            f"{rows} rows of {width} values; a search takes 1 to {MAX_ROWS} rows of 1 to {MAX_WIDTH}.",
        )


def _is_identity(step: ToUnit) -> bool:
    return not any(step.middle) and not any(step.exponents)


def _tree(params: ParameterSet, layout: _Layout, max_key_bytes: int) -> Tree:
    return plan_tree(layout.period, max_key_bytes // key_bytes(params))


def key_bytes(params: ParameterSet) -> int:
    """Of one evaluation key for level 0, seeded and packed."""
    digits = len(params.digit_plan(0).digits)
    bits = sum(q.bit_length() for q in (*params.q_moduli(0), *params.special))
    return digits * bits * params.n // 8


def _deviation(params: ParameterSet, stages: int) -> float:
    """Of one slot of a query that was turned: σ√N from encryption, and N/√18 from the rounding of each rotation. The
    latter is |s| at the slot's root times a normal number, so it has a long tail."""
    return hypot(sqrt(params.error_eta / 2 * params.n), params.n * sqrt(stages / 18.0)) / sqrt(2.0)


def _scales(params: ParameterSet, largest: float, row_length: float, stages: int) -> _Scales:
    """Slots of encoded rows deviate by √(N/12); half of every variance is imaginary."""
    reach = max(largest, 1.0)
    total = floor(log2(prod(params.q_moduli(0)) / 2 / reach))
    query_error = _deviation(params, stages) * max(row_length, 2.0**-20)
    row_error = sqrt(params.n / 24.0) * sqrt(reach)
    query = min(max(round((total + log2(query_error / row_error)) / 2), 1), total - 1)
    error = hypot(query_error * 2.0**-query, row_error * 2.0 ** (query - total))
    if total < 2 or error > reach:
        raise LatticeError("model_unsupported", f"Scores of up to {reach:.3g} leave no precision under this modulus.")
    return _Scales(query, total - query, error)


def _plain_program(params: ParameterSet, layout: _Layout, tree: Tree, scales: _Scales, has_bias: bool) -> Program:
    query, rows, score = (scale_text(Fraction(1 << b)) for b in (scales.query, scales.rows, scales.query + scales.rows))
    steps: list[ops.Instruction] = [ops.LoadInput(out=0, input=0)]
    turned, free = emit(tree, 0, steps, 1)
    weights: list[Weight] = []
    outputs: list[int] = []
    for start in range(0, layout.blocks, SUM_BLOCKS):
        blocks = range(start, min(start + SUM_BLOCKS, layout.blocks))
        weights.append(Weight(level=0, scale=rows, count=len(blocks) * layout.period))
        steps.append(ops.LoadWeight(out=free, weight=len(weights) - 1))
        terms = tuple(tuple((k, b * layout.period + k) for k in range(layout.period)) for b in range(len(blocks)))
        outs = tuple(range(free + 1, free + 1 + len(blocks)))
        steps.append(ops.SumPlain(outs=outs, inputs=tuple(turned), plain=free, terms=terms))
        outputs += outs
        free += 1 + len(blocks)
    for number in range(layout.blocks if has_bias else 0):
        weights.append(Weight(level=0, scale=score))
        steps.append(ops.LoadWeight(out=free, weight=len(weights) - 1))
        steps.append(ops.AddPlain(out=free + 1, a=outputs[number], plain=free))
        outputs[number] = free + 1
        free += 2
    return Program(params, (Input(level=0, scale=query),), tuple(weights), tuple(steps), tuple(outputs))


def _plain_weights(layout: _Layout, model: Affine, has_bias: bool) -> tuple[NDArray[np.floating[Any]], ...]:
    flat = np.append(model.weights.ravel(), 0.0)  # entry −1 is the zero at the end
    blocks = [
        np.stack([flat[layout.row_entries(block, turn)] for turn in range(layout.period)])
        for block in range(layout.blocks)
    ]
    sums = [np.concatenate(blocks[start : start + SUM_BLOCKS]) for start in range(0, layout.blocks, SUM_BLOCKS)]
    bias = np.append(model.bias, 0.0)
    biases = [bias[layout.score_entries(block)][None] for block in range(layout.blocks if has_bias else 0)]
    return (*sums, *biases)


def _client_part(
    layout: _Layout,
    scales: _Scales,
    shape: tuple[int, ...],
    before: tuple[Before, ...],
    after: tuple[After, ...],
    low: Real,
    high: Real,
) -> ClientPart:
    query, score = (scale_text(Fraction(1 << bits)) for bits in (scales.query, scales.query + scales.rows))
    return ClientPart(
        feature_shape=shape,
        batch=1,
        before=before,
        inputs=(Packed(layout.query_entries(), 0, query),),
        outputs=tuple(Packed(layout.score_entries(block), 0, score) for block in range(layout.blocks)),
        after=after,
        results=layout.rows,
        low=low,
        high=high,
    )


class EncryptedSearch(NamedTuple):
    """A search in rows that their owner encrypted and uploaded once."""

    compiled: Compiled
    """Takes the query's ciphertext first, then those of the database."""
    database: ClientPart
    """How the owner packs the rows, as one sample of shape `[rows, width]`, of any lengths."""


def compile_encrypted_similarity(
    rows: int, width: int, *, best: int | None = 10, max_key_bytes: int = KEY_BYTES
) -> EncryptedSearch:
    """Cosine similarity among encrypted rows, all under the key of whoever asks: only sizes are known here."""
    params = search_parameters()
    _require_size(width, rows)
    layout = _Layout(params.slots, width, rows)
    tree = _tree(params, layout, max_key_bytes - key_bytes(params))
    total = floor(log2(prod(params.q_moduli(0)) / 2))
    query = (total + 2) // 2
    fresh, turned = _deviation(params, 0), _deviation(params, len(tree.radices))
    scales = _Scales(query, total - query, hypot(turned * 2.0**-query, fresh * 2.0 ** (query - total)))
    after = (Largest(min(best, rows)),) if best else ()
    one = np.ones(width)
    client = _of_any_length(_client_part(layout, scales, (width,), (Normalise(),), after, -one, one))
    program = _encrypted_program(params, layout, tree, scales)
    database = _database_part(layout, scales)
    compiled = Compiled(program, (), client, _report(layout, scales), database)
    return EncryptedSearch(compiled, database)


def _encrypted_program(params: ParameterSet, layout: _Layout, tree: Tree, scales: _Scales) -> Program:
    query_scale, row_scale = (scale_text(Fraction(1 << bits)) for bits in (scales.query, scales.rows))
    steps: list[ops.Instruction] = [ops.LoadInput(out=0, input=0)]
    turned, free = emit(tree, 0, steps, 1)
    outputs = []
    for block in range(layout.blocks):
        total = -1
        for turn, query in enumerate(turned):
            steps.append(ops.LoadInput(out=free, input=1 + block * layout.period + turn))
            steps.append(ops.Multiply(out=free + 1, a=query, b=free))
            free += 2
            if total >= 0:
                steps.append(ops.Add(out=free, a=total, b=free - 1))
                free += 1
            total = free - 1
        steps.append(ops.Relinearise(out=free, a=total))
        outputs.append(free)
        free += 1
    inputs = (Input(0, query_scale), *[Input(0, row_scale)] * (layout.blocks * layout.period))
    return Program(params, inputs, (), tuple(steps), tuple(outputs))


def _database_part(layout: _Layout, scales: _Scales) -> ClientPart:
    scale = scale_text(Fraction(1 << scales.rows))
    places = [layout.row_entries(block, turn) for block in range(layout.blocks) for turn in range(layout.period)]
    anything = np.full(layout.rows * layout.width, ANYTHING)
    return ClientPart(
        feature_shape=(layout.rows, layout.width),
        batch=1,
        before=(NormaliseRows(),),
        inputs=tuple(Packed(entries, 0, scale) for entries in places),
        outputs=(),
        after=(),
        results=0,
        low=-anything,
        high=anything,
    )


def _report(layout: _Layout, scales: _Scales) -> dict[str, Any]:
    layer = LayerReport(
        "scores",
        f"scores of {layout.rows} rows of {layout.width} numbers",
        shape=(layout.rows,),
        rotations=layout.period - 1,
        diagonals=layout.blocks * layout.period,
        ciphertexts=layout.blocks,
        error=scales.error,
    )
    totals = TotalsReport(rotations=layer.rotations, diagonals=layer.diagonals, error=scales.error)
    return Report(model="similarity", goal="keys", layers=(layer,), totals=totals).to_dict()
