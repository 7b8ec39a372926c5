"""Packing for throughput: the slots hold samples, and a ciphertext holds a few features of every sample.

Slot f·s + c of an input holds feature f·k + c of sample s. A weight is then the same for every sample: its plaintext
repeats with period f, has 2f distinct values in NTT form, and a layer is a matrix product with numbers (`Combine`).

The first layer makes one ciphertext for each of its outputs: products with period-f weights, then a sum over c by
rotations (for f = 4 by 1, 2 and 3, hoisted), which is right where c = 0 and mixes neighbouring samples elsewhere. From
there on weights are plain numbers (period 1), and no layer rotates anything: only squares need a key. The last layer's
weights are zero outside of c = 0, so nothing of the mixtures leaves. What a slot with c ≠ 0 computes is the model on a
sample whose features c … f − 1 of every k are this sample's and the others the next one's. A polynomial that was fitted
on an interval bears that if such samples stay within it, which is looked up on calibration samples.

Why one output in a ciphertext, and not f: with outputs at all c, the sum over c needs terms that move to the right and
to the left (a slot's group of f is no orbit of a rotation), that is 2f − 1 products for f. For 784-128-128-10 at f = 4
that would be 44,000 instead of 25,000 products in the costly first layer and 192 rotations that share nothing, against
128 hoisted triples; and 32 instead of 128 squares. About even, with more keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import ZERO, Circuit, Slots, Stages
from lattice.fhe.compiler.graph import Graph, Node, Real, Shape
from lattice.fhe.compiler.operations import Difference, Linear, Product, Series, Square, Sum
from lattice.fhe.compiler.operations.sizes import size

MAX_WEIGHTS = 1 << 24
"""Numbers in one layer's full matrix: convolutions are written out, which is right for small ones only."""
MAX_CIPHERTEXTS = 1 << 13
"""Values of one layer."""
FEWEST_MIXED, MOST_MIXED = 64, 1 << 22
"""Samples whose mixtures are looked at, at the least, and numbers that tracing them may make."""
MAX_PERIOD = 16
"""Beyond this, folding costs more than the products that it saves."""


def pack_batch(graph: Graph, slots: int, batch: int, samples: Real | None = None) -> Circuit:
    """A circuit for `batch` samples at once; fewer fill what is left with zeros. Features are grouped where slots are
    left over, and samples are padded to a power of two of slots. A graph with series of degree 3 or more is grouped
    only if `samples` `[count, features]`, as the graph takes them, show that it may be."""
    if not 1 <= batch <= slots:
        raise LatticeError("model_unsupported", f"{batch} samples at once do not fit into {slots} slots.")
    return _Packing(graph, slots, _period(graph, slots // batch, samples)).circuit()


def _period(graph: Graph, room: int, samples: Real | None) -> int:
    """How many features share a ciphertext. A series may explode on mixtures of samples, and then allows one only; and
    the input must go into one linear layer, which must not be the last."""
    readers = [node for node in graph.nodes if graph.input in node.inputs]
    grouped = len(readers) == 1 and isinstance(readers[0].operation, Linear) and readers[0].name != graph.output
    if not grouped or graph.output == graph.input:
        return 1
    features = int(np.prod(graph.input_shape))
    period = min(1 << (room.bit_length() - 1), 1 << (features - 1).bit_length(), MAX_PERIOD)
    series = [node for node in graph.nodes if isinstance(node.operation, Series) and node.operation.degree > 2]
    some = None if samples is None or not series else _some(graph, samples)
    while series and period > 1 and (some is None or not _stay(graph, series, mixtures(some, period))):
        period //= 2
    return period


def _some(graph: Graph, samples: Real) -> Real:
    """As many of the samples, from all over, as take tenths of a second to mix and trace."""
    count = max(FEWEST_MIXED, MOST_MIXED // sum(size(shape) for shape in graph.shapes().values()))
    return samples[:: -(-len(samples) // count)]


def mixtures(samples: Real, period: int) -> Iterator[Real]:
    """For each c above 0 the samples `[count, features]` that slots f·s + c see: mixed with the next one, or with the
    zeros that fill a batch up."""
    flat = samples.reshape(len(samples), -1)
    padded = np.concatenate([flat, np.zeros_like(flat[:1])])
    zeros = np.zeros_like(flat)
    place = np.arange(flat.shape[1]) % period
    for c in range(1, period):
        for these, others in ((padded, np.roll(padded, -1, axis=0)), (flat, zeros), (zeros, flat)):
            yield np.where(place >= c, these, others)


def _stay(graph: Graph, series: Sequence[Node], mixed: Iterable[Real]) -> bool:
    """Whether all series' arguments are within their intervals."""
    for samples in mixed:
        values = graph.trace(samples.reshape(-1, *graph.input_shape))
        for node in series:
            low, high = cast(Series, node.operation).interval
            x = values[node.inputs[0]]
            if not (low <= x.min() and x.max() <= high):
                return False
    return True


@dataclass
class _Packing:
    graph: Graph
    slots: int
    period: int
    made: list[steps.Step] = field(default_factory=list)
    values: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Graph value → the circuit's values, one for each entry of the flattened tensor (grouped: of the input)."""
    free: int = 0

    @property
    def samples(self) -> int:
        return self.slots // self.period

    def circuit(self) -> Circuit:
        """Inputs, every node in order, outputs."""
        features = int(np.prod(self.graph.input_shape))
        inputs = self._inputs(features)
        self._require(len(inputs), "inputs")
        self.values[self.graph.input] = self._fresh(len(inputs))
        shapes = self.graph.shapes()
        for node in self.graph.nodes:
            self.values[node.name] = self._node(node, [shapes[name] for name in node.inputs])
        outputs = self._clean(self.values[self.graph.output])
        return Circuit(self.slots, self.samples, inputs, tuple(self.made), outputs, self._places(len(outputs)))

    def _inputs(self, features: int) -> tuple[Slots, ...]:
        sample, place = np.divmod(np.arange(self.slots), self.period)
        out = []
        for k in range(ceil(features / self.period)):
            feature = k * self.period + place
            out.append(np.where(feature < features, sample * features + feature, ZERO).astype(np.int32))
        return tuple(out)

    def _places(self, results: int) -> tuple[Slots, ...]:
        sample, place = np.divmod(np.arange(self.slots), self.period)
        return tuple(np.where(place == 0, sample * results + k, ZERO).astype(np.int32) for k in range(results))

    def _node(self, node: Node, shapes: list[Shape]) -> tuple[int, ...]:
        operation, operands = node.operation, [self.values[name] for name in node.inputs]
        if isinstance(operation, Linear):
            return self._linear(node, operation, shapes[0], operands[0])
        if isinstance(operation, Square) or (isinstance(operation, Series) and operation.is_square):
            return self._entrywise(lambda out, a: steps.Square(out, a, layer=node.name), operands)
        if isinstance(operation, Series):
            series = operation
            return self._entrywise(
                lambda out, a: steps.Polynomial(out, a, series.coefficients, series.interval, layer=node.name), operands
            )
        for kind, step in ((Sum, steps.Add), (Difference, steps.Subtract), (Product, steps.Multiply)):
            if isinstance(operation, kind):
                return self._entrywise(lambda out, a, b, step=step: step(out, a, b, layer=node.name), operands)
        raise LatticeError("model_unsupported", f"{node.name!r} ({type(operation).__name__}) has no batch packing.")

    def _linear(self, node: Node, operation: Linear, shape: Shape, operands: tuple[int, ...]) -> tuple[int, ...]:
        sparse = operation.matrix(shape)
        self._require(sparse.outputs, "outputs")
        if sparse.outputs * sparse.inputs > MAX_WEIGHTS:
            raise LatticeError(
                "model_unsupported",
                f"{node.name!r} has {sparse.outputs} × {sparse.inputs} weights written out; {MAX_WEIGHTS} are taken.",
            )
        weights = np.zeros((sparse.outputs, len(operands) * (self.period if node.inputs[0] == self.graph.input else 1)))
        weights[sparse.rows, sparse.columns] = sparse.values
        grouped = node.inputs[0] == self.graph.input and self.period > 1
        last = node.name == self.graph.output
        shaped = weights.reshape(sparse.outputs, len(operands), -1)
        bias = np.repeat(sparse.bias[:, None], shaped.shape[-1], axis=1)
        if last and not grouped:
            shaped, bias = shaped * self._only_first(), bias * self._only_first()
        return self._combine(node.name, shaped, bias, self._fold() if grouped else (), operands)

    def _combine(
        self, layer: str, weights: Real, bias: Real, fold: Stages, operands: tuple[int, ...]
    ) -> tuple[int, ...]:
        outs = self._fresh(len(weights))
        added = bias if np.any(bias) else None
        self.made.append(steps.Combine(outs, operands, weights, fold, added, layer=layer))
        return outs

    def _only_first(self) -> Real:
        """1 at c = 0, else 0."""
        out = np.zeros(self.period)
        out[0] = 1.0
        return out

    def _fold(self) -> Stages:
        """Four terms at a time: three hoisted rotations cost little more than one."""
        stages, reach = [], 1
        while reach < self.period:
            radix = min(4, self.period // reach)
            stages.append(tuple(digit * reach for digit in range(1, radix)))
            reach *= radix
        return tuple(stages)

    def _entrywise(self, make: Callable[..., Any], operands: list[tuple[int, ...]]) -> tuple[int, ...]:
        if len({len(operand) for operand in operands}) != 1:
            raise LatticeError("model_unsupported", "Two tensors of different sizes meet in the model.")
        outs = self._fresh(len(operands[0]))
        self.made += [make(out, *values) for out, *values in zip(outs, *operands, strict=True)]
        return outs

    def _clean(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """A model that does not end in a linear layer has mixtures left where c ≠ 0."""
        last = next((node for node in self.graph.nodes if node.name == self.graph.output), None)
        if self.period == 1 or last is None or isinstance(last.operation, Linear):
            return values
        identity: NDArray[np.float64] = np.eye(len(values))[:, :, None] * self._only_first()
        return self._combine("mask", identity, np.zeros((len(values), 1)), (), values)

    def _fresh(self, count: int) -> tuple[int, ...]:
        self.free += count
        return tuple(range(self.free - count, self.free))

    def _require(self, count: int, what: str) -> None:
        if not 0 < count <= MAX_CIPHERTEXTS:
            raise LatticeError(
                "model_unsupported", f"A layer has {count} {what}; a batch takes 1 to {MAX_CIPHERTEXTS}."
            )
