"""Rewriting a graph in one walk from input to output: nodes are replaced, and values may take another's place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from lattice.fhe.compiler.graph import Graph, Node, Operation, Shape


class Edit:
    """The new graph as the walk makes it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, Node] = {}
        self.changed = False
        self._shapes = graph.shapes()
        self._stands_for: dict[str, str] = {}
        # Who reads a value: nodes of the new graph, and nodes of the old one that the walk has yet to reach.
        self._made: Counter[str] = Counter()
        self._pending = Counter(name for node in graph.nodes for name in node.inputs)
        self._pending[graph.output] += 1

    def walk(self) -> Iterator[Node]:
        """The old nodes in order, with their inputs brought up to date; what they read no longer counts as read."""
        for node in self.graph.nodes:
            inputs = tuple(self._current(name) for name in node.inputs)
            self._pending.subtract(inputs)
            yield node if inputs == node.inputs else replace(node, inputs=inputs)

    def only_reader(self, name: str) -> bool:
        """Whether nothing but the node that the walk is at reads this value."""
        return self._pending[name] + self._made[name] == 0

    def maker(self, name: str) -> Node | None:
        """The node that makes a value which only the node that the walk is at reads."""
        node = self.nodes.get(name)
        return node if node is not None and self.only_reader(name) else None

    def shape(self, name: str) -> Shape:
        """A value's shape."""
        return self._shapes[name]

    def keep(self, node: Node) -> None:
        """The node as it is."""
        self.put(node.name, node.operation, *node.inputs)

    def put(self, name: str, operation: Operation, *inputs: str) -> str:
        """A node of the new graph."""
        self._shapes[name] = operation.shape(*(self._shapes[value] for value in inputs))
        self.nodes[name] = Node(name, operation, inputs)
        self._made.update(inputs)
        return name

    def drop(self, name: str) -> None:
        """The node goes."""
        self._made.subtract(self.nodes.pop(name).inputs)
        self.changed = True

    def stand(self, name: str, other: str) -> None:
        """Whoever is still to read the first value reads the second one."""
        if name != other:
            self._pending[other] += self._pending.pop(name, 0)
            self._stands_for[name] = other
            self.changed = True

    def done(self) -> Graph:
        """The new graph, without nodes that nothing reads."""
        output = self._current(self.graph.output)
        kept: list[Node] = []
        wanted = {output}
        for node in reversed(self.nodes.values()):
            if node.name in wanted:
                wanted.update(node.inputs)
                kept.append(node)
        return replace(self.graph, nodes=tuple(reversed(kept)), output=output)

    def _current(self, name: str) -> str:
        while name in self._stands_for:
            name = self._stands_for[name]
        return name
