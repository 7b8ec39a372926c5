"""A sigmoid at the very end is the client's: it is exact there and costs no level."""

from __future__ import annotations

from dataclasses import replace

from lattice.fhe.compiler.client_part import ArgMax, Largest, Sigmoid, Threshold
from lattice.fhe.compiler.graph import Node
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.operations import Activation, Permute, Reshape

DECISIONS = (ArgMax, Threshold, Largest)


def sink(model: Imported) -> Imported:
    """The model with its last sigmoid among the client's steps."""
    graph = model.graph
    by_name = {node.name: node for node in graph.nodes}
    readers = [name for node in graph.nodes for name in node.inputs]
    behind: list[Node] = []
    name = graph.output
    while (node := by_name.get(name)) is not None and isinstance(node.operation, Reshape | Permute):
        if readers.count(name) > len(behind[-1:]):
            return model
        behind.append(node)
        name = node.inputs[0]
    if node is None or not isinstance(node.operation, Activation) or node.operation.function != "sigmoid":
        return model
    if readers.count(name) > len(behind[-1:]) or not all(isinstance(step, DECISIONS) for step in model.after):
        return model
    nodes = [_past(each, node) for each in graph.nodes if each is not node]
    output = node.inputs[0] if graph.output == node.name else graph.output
    return replace(model, graph=replace(graph, nodes=tuple(nodes), output=output), after=(Sigmoid(), *model.after))


def _past(node: Node, gone: Node) -> Node:
    inputs = tuple(gone.inputs[0] if name == gone.name else name for name in node.inputs)
    return replace(node, inputs=inputs)
