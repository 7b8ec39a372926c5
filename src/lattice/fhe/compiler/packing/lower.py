"""A graph to a circuit: plan, build what the plan chose, number the values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit, Real, Step
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.operations import Difference, Product, Series, Sparse, Sum
from lattice.fhe.compiler.packing.bsgs import Split
from lattice.fhe.compiler.packing.bsgs import steps as matrix_steps
from lattice.fhe.compiler.packing.linear import Built, Entries, build
from lattice.fhe.compiler.packing.planner import Move, PackingOptions, Plan, Planner

_PAIRS: dict[type, type[steps.Add] | type[steps.Subtract] | type[steps.Multiply]] = {
    Sum: steps.Add,
    Difference: steps.Subtract,
    Product: steps.Multiply,
}


def pack(graph: Graph, slots: int, options: PackingOptions | None = None) -> Circuit:
    """The circuit for one sample of a graph that has gone through the passes."""
    return Packer(graph).pack(slots, options)


@dataclass(eq=False)
class Packer:
    """Packs one graph several times: what does not depend on the price of keys is worked out once."""

    graph: Graph
    _planners: dict[int, Planner] = field(default_factory=dict)

    def pack(self, slots: int, options: PackingOptions | None = None) -> Circuit:
        """The circuit for one sample."""
        if slots < 2 or slots & (slots - 1):
            raise LatticeError("circuit_invalid", f"The number of slots is a power of two, not {slots}.")
        if slots not in self._planners:
            self._planners[slots] = Planner(self.graph, slots)
        planner = self._planners[slots]
        return _Lowering(planner).circuit(planner.plan(options or PackingOptions()))


@dataclass(eq=False)
class _Lowering:
    """Steps so far, and which circuit values hold each value of the graph."""

    planner: Planner
    steps: list[Step] = field(default_factory=list)
    values: dict[str, tuple[int, ...]] = field(default_factory=dict)
    count: int = 0

    def circuit(self, plan: Plan) -> Circuit:
        graph = self.planner.graph
        source = plan.source(graph.input)
        self.values[graph.input] = self._numbers(len(source.slots))
        for move in plan.moves:
            self._move(move)
        return Circuit(
            slots=self.planner.slots,
            batch=1,
            inputs=source.slots,
            steps=tuple(self.steps),
            outputs=self.values[graph.output],
            places=plan.layouts[graph.output].outside(),
        )

    def _numbers(self, count: int) -> tuple[int, ...]:
        self.count += count
        return tuple(range(self.count - count, self.count))

    def _move(self, move: Move) -> None:
        node = move.node
        read = {name: self.values[name] for name in node.inputs}
        for name, planned, split in move.builds:
            own = node.name in self.planner.matrices
            read[name] = self._matrix(planned, split, read[name], node.name if own else f"{node.name}.repack", own)
        operands = [read[name] for name in node.inputs]
        self.values[node.name] = operands[0] if node.name in self.planner.matrices else self._operation(node, operands)

    def _matrix(self, planned: Built, split: Split, inputs: tuple[int, ...], layer: str, own: bool) -> tuple[int, ...]:
        if own:
            entries = self.planner.entries[layer]
            bias: Real = entries.sparse.bias
        else:
            size = len(planned.scheme.source.places)
            entries = Entries(Sparse.gather(np.arange(size, dtype=np.int64), size))
            bias = np.zeros(size)
        built = build(entries, planned.scheme)
        added, outs = matrix_steps(built, split, self.count, inputs, bias, layer)
        self.steps += added
        self.count = outs[-1] + 1
        return outs

    def _operation(self, node: Node, operands: list[tuple[int, ...]]) -> tuple[int, ...]:
        outs = self._numbers(len(operands[0]))
        for at, out in enumerate(outs):
            own = tuple(values[at] for values in operands)
            self.steps.append(_step(node, out, own))
        return outs


def _step(node: Node, out: int, own: tuple[int, ...]) -> Step:
    pair = _PAIRS.get(type(node.operation))
    if pair is not None:
        return pair(out, own[0], own[1], layer=node.name)
    operation = node.operation
    if isinstance(operation, Series) and not operation.is_square:
        return steps.Polynomial(out, own[0], operation.coefficients, operation.interval, layer=node.name)
    return steps.Square(out, own[0], layer=node.name)
