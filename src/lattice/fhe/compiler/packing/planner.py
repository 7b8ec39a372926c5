"""Which scheme for which layer: a beam search over the nodes of the graph in order.

A state is the layouts of the values that are still needed, the price so far and the rotation steps so far; of states
with the same layouts the cheapest few go on. A distinct rotation step costs something (it is a key), so layers come
to share steps. The graph's input has no layout until its first reader chooses one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.circuits.matrix import Limbs
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.operations import Indices, Linear, Product, Series, Sparse, Square
from lattice.fhe.compiler.packing.bsgs import Split, key_cost, splits
from lattice.fhe.compiler.packing.candidates import first, middle, plain, toward
from lattice.fhe.compiler.packing.geometry import families
from lattice.fhe.compiler.packing.layer import Layer
from lattice.fhe.compiler.packing.layout import Layout, joined
from lattice.fhe.compiler.packing.linear import Built, Entries, Scheme, build

BEAM, LAYOUTS = 16, 3
"""States that go on from a node, and of those the most with the same layouts."""
BESIDE = 1 << 20
"""Entries of the largest layer that is tried in a layout that has nothing to do with its own."""
TRIED = 2
"""Splits of one scheme that go on."""
LEVEL, JUNK_LEAVES, INPUT = 600.0, 300.0, 600.0
"""The least price of a level that the model itself does not need, the price of an output that must be blinded, and
that of a ciphertext more to send."""


class Goal(StrEnum):
    """What is kept small first."""

    LATENCY = "latency"
    KEYS = "keys"


KEY_PRICES = {Goal.LATENCY: 1.5, Goal.KEYS: 20.0}
"""What a limb of a key costs, in transforms of one limb. The first keeps the examples' keys within their budgets."""


@dataclass(frozen=True)
class PackingOptions:
    """What packing may be told."""

    goal: Goal = Goal.LATENCY
    key_price: float | None = None
    """Instead of the goal's own: 0 is fastest whatever it takes, and above about 6 there is little left to save."""

    @property
    def price(self) -> float:
        """The price of a limb of a key, in transforms of one limb."""
        return KEY_PRICES[self.goal] if self.key_price is None else self.key_price


@dataclass(frozen=True, eq=False)
class Move:
    """What a plan does about one node. `builds` come first, each on the value named; then the node's own operation."""

    node: Node
    builds: tuple[tuple[str, Built, Split], ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """A state of the search; the moves are a chain through `before`."""

    layouts: Mapping[str, Layout]
    price: float = 0.0
    steps: frozenset[int] = frozenset()
    before: Plan | None = None
    move: Move | None = None

    @property
    def moves(self) -> list[Move]:
        """From the first node to the last."""
        found: list[Move] = []
        plan: Plan | None = self
        while plan is not None and plan.move is not None:
            found.append(plan.move)
            plan = plan.before
        return found[::-1]

    def source(self, name: str) -> Layout:
        """The layout of a value that may be forgotten by now."""
        plan: Plan | None = self
        while plan is not None and name not in plan.layouts:
            plan = plan.before
        if plan is None:
            raise LatticeError("packing_failed", f"Nothing reads {name!r}.")
        return plan.layouts[name]


@dataclass(eq=False)
class Planner:
    """One graph, one number of slots."""

    graph: Graph
    slots: int
    options: PackingOptions = field(default_factory=PackingOptions)
    _built: dict[tuple[str, bytes], list[Built]] = field(default_factory=dict)
    _split: dict[tuple[int, Limbs], list[tuple[Split, frozenset[int]]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shapes = self.graph.shapes()
        self.matrices = self._matrices()
        self.families = families(self.graph, self.matrices)
        self.entries = {name: Entries(sparse) for name, sparse in self.matrices.items()}
        self.limbs = self._limbs()
        self.last = self._last_use()
        pairs = [node.inputs for node in self.graph.nodes if len(node.inputs) == 2]
        self.partners = {
            own: [b if own == a else a for a, b in pairs if own in (a, b)] for pair in pairs for own in pair
        }

    def plan(self, options: PackingOptions) -> Plan:
        """The cheapest plan found. What was built for one price of keys is kept for the next."""
        if options != self.options:
            self.options = options
            self._split.clear()
        states = [Plan({})]
        for at, node in enumerate(self.graph.nodes):
            found = [after for state in states for after in self._after(state, node)]
            if not found:
                raise LatticeError("packing_failed", f"No packing was found for {node.name!r}.")
            states = self._best([self._forgetting(state, at) for state in found])
        final = [(state, self.final_price(state)) for state in states]
        return min(final, key=lambda pair: pair[1])[0]

    def final_price(self, plan: Plan) -> float:
        """With what it costs to blind the output."""
        return plan.price + (JUNK_LEAVES if plan.layouts[self.graph.output].has_junk else 0.0)

    def layer(self, node: Node) -> Layer:
        """The node as candidates see it."""
        pairs = tuple((grids.get(node.inputs[0]), grids.get(node.name)) for grids in self.families)
        return Layer(node.name, self.entries[node.name], self.slots, pairs)

    def _matrices(self) -> dict[str, Sparse]:
        return {
            node.name: node.operation.matrix(self.shapes[node.inputs[0]])
            for node in self.graph.nodes
            if isinstance(node.operation, Linear)
        }

    def _limbs(self) -> dict[str, Limbs]:
        """Sizes of key switches by node, from the levels that still come after it."""
        after: dict[str, int] = {}
        for node in reversed(self.graph.nodes):
            below = after.get(node.name, 0)
            for name in node.inputs:
                after[name] = max(after.get(name, 0), below + _levels(node, self.matrices))
        deep = {node.name: after.get(node.name, 0) + 2 for node in self.graph.nodes}
        return {name: Limbs(q, 2, -(-q // 2)) for name, q in deep.items()}

    def _last_use(self) -> dict[str, int]:
        last = {name: at for at, node in enumerate(self.graph.nodes) for name in node.inputs}
        return last | {self.graph.output: len(self.graph.nodes)}

    def _forgetting(self, plan: Plan, at: int) -> Plan:
        kept = {name: layout for name, layout in plan.layouts.items() if self.last.get(name, -1) > at}
        return Plan(kept, plan.price, plan.steps, plan.before, plan.move)

    @staticmethod
    def _best(states: list[Plan]) -> list[Plan]:
        by_layout: dict[tuple[tuple[str, bytes], ...], int] = {}
        kept: list[Plan] = []
        for state in sorted(states, key=lambda plan: plan.price):
            key = tuple(sorted((name, layout.key) for name, layout in state.layouts.items()))
            by_layout[key] = by_layout.get(key, 0) + 1
            if by_layout[key] <= LAYOUTS and len(kept) < BEAM:
                kept.append(state)
        return kept

    def _after(self, plan: Plan, node: Node) -> Iterator[Plan]:
        if node.name in self.matrices:
            yield from self._linear(plan, node)
            return
        for ready in self._given(plan, node):
            if len(node.inputs) == 2:
                yield from self._pair(ready, node)
            else:
                yield from self._function(ready, node)

    def _given(self, plan: Plan, node: Node) -> Iterator[Plan]:
        """The plan with a layout for the graph's input, if this node reads it and nobody has chosen one yet."""
        if self.graph.input not in node.inputs or self.graph.input in plan.layouts:
            yield plan
            return
        size = int(np.prod(self.graph.input_shape))
        for layout in plain(size, self.slots, [grids.get(self.graph.input) for grids in self.families]):
            price = plan.price + INPUT * len(layout.slots)
            yield Plan({**plan.layouts, self.graph.input: layout}, price, plan.steps, plan.before, plan.move)

    def _linear(self, plan: Plan, node: Node) -> Iterator[Plan]:
        (name,) = node.inputs
        names = _permutation(self.matrices[node.name])
        if names is not None:
            for ready in self._given(plan, node):
                layout = ready.layouts[name].relabelled(names)
                yield self._with(ready, node, layout)
            return
        for built in [*self._candidates(node, plan.layouts.get(name)), *self._beside(plan, node)]:
            layouts = {**plan.layouts, name: built.scheme.source}
            sent = 0 if name in plan.layouts else INPUT * len(built.scheme.source.slots)
            ready = Plan(layouts, plan.price + sent, plan.steps, plan.before, plan.move)
            yield from self._building(ready, node, [(name, built)], built.layout)

    def _beside(self, plan: Plan, node: Node) -> Iterator[Built]:
        """The layer straight into the layout of the tensor with which its result will be added or multiplied."""
        source = plan.layouts.get(node.inputs[0])
        for name in self.partners.get(node.name, ()):
            other = plan.layouts.get(name)
            if source is None or other is None or self.matrices[node.name].entries > BESIDE:
                continue
            key = (node.name, source.key + other.key)
            if key not in self._built:
                layer = self.layer(node)
                self._built[key] = _tried(layer.entries, [toward(layer, source, other)])
            yield from self._built[key]

    def _building(self, plan: Plan, node: Node, builds: list[tuple[str, Built]], layout: Layout) -> Iterator[Plan]:
        """The plan after some linear layers, with each of their best splits in turn."""
        states: list[tuple[float, frozenset[int], tuple[tuple[str, Built, Split], ...]]] = [(0.0, plan.steps, ())]
        price = self.options.price * key_cost(self.limbs[node.name])
        for name, built in builds:
            states = [
                (
                    time + split.time + price * len(split_steps - known),
                    known | split_steps,
                    (*done, (name, built, split)),
                )
                for time, known, done in states
                for split, split_steps in self._splits(built, node)
            ]
        for time, steps, done in sorted(states, key=lambda state: state[0])[:TRIED]:
            yield Plan({**plan.layouts, node.name: layout}, plan.price + time, steps, plan, Move(node, done))

    def _splits(self, built: Built, node: Node) -> list[tuple[Split, frozenset[int]]]:
        """The best splits with the keys that they need."""
        key = (id(built), self.limbs[node.name])
        if key not in self._split:
            found = splits(built, self.limbs[node.name], self.options.price)
            self._split[key] = [(split, frozenset(step % self.slots for step in split.steps)) for split in found]
        return self._split[key]

    def _with(self, plan: Plan, node: Node, layout: Layout) -> Plan:
        return Plan({**plan.layouts, node.name: layout}, plan.price, plan.steps, plan, Move(node))

    def _candidates(self, node: Node, layout: Layout | None) -> list[Built]:
        key = (node.name, b"" if layout is None else layout.key)
        if key not in self._built:
            layer = self.layer(node)
            schemes = list(first(layer) if layout is None else middle(layer, layout))
            self._built[key] = _tried(self.entries[node.name], schemes)
        return self._built[key]

    def _function(self, plan: Plan, node: Node) -> Iterator[Plan]:
        """A square keeps zeros and bears junk; a polynomial may explode on junk, which is masked away before it."""
        (name,) = node.inputs
        layout, operation = plan.layouts[name], node.operation
        if isinstance(operation, Square) or (isinstance(operation, Series) and operation.is_square):
            yield self._with(plan, node, layout.filled(layout.filler**2))
            return
        if not isinstance(operation, Series):
            raise LatticeError("model_unsupported", f"{type(operation).__name__} ({node.name!r}) cannot be packed.")
        if operation.degree <= 2 or not (layout.has_junk or _explodes(operation, layout.filler)):
            yield self._with(plan, node, layout.filled(_largest(operation, layout.filler)))
            return
        built = self._repacked(layout, name, layout.cleaned())
        dear = _a_level_later(plan)
        yield from self._building(dear, node, [(name, built)], built.layout.filled(_largest(operation, 0.0)))

    def _pair(self, plan: Plan, node: Node) -> Iterator[Plan]:
        """Both tensors in one layout: as they are, or one of them taken to the other's."""
        left, right = (plan.layouts[name] for name in node.inputs)
        multiplies = isinstance(node.operation, Product)
        size = int(np.prod(self.shapes[node.name]))
        if len(left.slots) == len(right.slots):
            both = joined(left, right, product=multiplies)
            if both.holds(size):
                yield self._with(plan, node, both)
                return
        dear = _a_level_later(plan)
        for moved, name, other in ((left, node.inputs[0], right), (right, node.inputs[1], left)):
            built = self._repacked(moved, name, other)
            pair = (built.layout, other) if moved is left else (other, built.layout)
            yield from self._building(dear, node, [(name, built)], joined(*pair, product=multiplies))

    def _repacked(self, layout: Layout, name: str, target: Layout) -> Built:
        """The tensor as it is, in another layout."""
        size = int(np.prod(self.shapes[name]))
        key = (name, layout.key + target.key)
        if key not in self._built:
            entries = Entries(Sparse.gather(np.arange(size, dtype=np.int64), size))
            layer = Layer(name, entries, self.slots)
            self._built[key] = [build(entries, toward(layer, layout, target), values=False)]
        return self._built[key][0]


def _a_level_later(plan: Plan) -> Plan:
    """One level more makes every layer before it slower."""
    price = plan.price + max(LEVEL, 0.1 * plan.price)
    return Plan(plan.layouts, price, plan.steps, plan.before, plan.move)


def _explodes(operation: Series, constant: float) -> bool:
    """Whether a constant of that size may lie outside the series' interval."""
    low, high = operation.interval
    return constant > 0 and not low <= -constant <= constant <= high


def _largest(operation: Series, constant: float) -> float:
    """The largest that the series makes of a constant up to that size."""
    return float(np.abs(operation.forward(np.linspace(-constant, constant, 65))).max())


def _tried(entries: Entries, schemes: list[Scheme]) -> list[Built]:
    """The schemes that hold, without those that need several times the offsets of others."""
    found: list[Built] = []
    for scheme in sorted(schemes, key=lambda scheme: len(scheme.offsets) * len(scheme.outputs)):
        rivals = [built for built in found if len(built.scheme.source.slots) <= len(scheme.source.slots)]
        least = min((built.diagonal_count for built in rivals), default=1 << 62)
        if len(scheme.offsets) * len(scheme.outputs) > (4 if scheme.clean else 1.5) * least + 64:
            continue
        try:
            found.append(build(entries, scheme, values=False))
        except LatticeError as error:
            if error.code != "packing_failed":
                raise
    return found


def _permutation(sparse: Sparse) -> Indices | None:
    """names[c] = the output that is input c, if the layer only moves entries about."""
    count = sparse.outputs
    plain = sparse.inputs == count == len(sparse.rows) and bool((sparse.values == 1).all()) and not sparse.bias.any()
    if not plain or len(np.unique(sparse.rows)) != count or len(np.unique(sparse.columns)) != count:
        return None
    names = np.empty(count, dtype=np.int64)
    names[sparse.columns] = sparse.rows
    return names


def _levels(node: Node, matrices: Mapping[str, Sparse]) -> int:
    if isinstance(node.operation, Series) and not node.operation.is_square:
        return 1 + int(node.operation.degree).bit_length()
    return 1 if node.name in matrices or len(node.inputs) == 1 or isinstance(node.operation, Product) else 0
