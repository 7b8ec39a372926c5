"""Series as packing takes them: on [−1, 1], which the layer before maps to; degree 2 as a square between layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.operations import Affine, Linear, Series, Square


def lowered(graph: Graph) -> Graph:
    """The layers that this adds are merged into their neighbours by the passes; where there is no layer before that
    could take the mapping in, the series keeps its interval."""
    readers = [name for node in graph.nodes for name in node.inputs]
    makers = {node.name: node.operation for node in graph.nodes}
    nodes: list[Node] = []
    for node in graph.nodes:
        operation = node.operation
        if not isinstance(operation, Series) or operation.is_square:
            nodes.append(node)
        elif operation.degree <= 2:
            nodes += _squared(node, operation)
        elif operation.interval == (-1.0, 1.0) or not _takes(makers.get(node.inputs[0]), readers, node.inputs[0]):
            nodes.append(node)
        else:
            low, high = operation.interval
            name = f"{node.name}.range"
            mapping = Affine(np.array(2 / (high - low)), np.array(-(low + high) / (high - low)))
            nodes.append(Node(name, mapping, node.inputs))
            nodes.append(Node(node.name, Series(operation.coefficients), (name,)))
    return replace(graph, nodes=tuple(nodes))


def _squared(node: Node, series: Series) -> list[Node]:
    """c0 + c1·t + c2·(2t² − 1) = 2·c2·(t + c1/(4·c2))² + …, t = a·x + b: a layer, a square and a layer."""
    c0, c1, c2 = (*series.coefficients, 0.0, 0.0)[:3]
    low, high = series.interval
    a, b = 2 / (high - low), -(low + high) / (high - low)
    if c2 == 0:
        return [Node(node.name, Affine(np.array(c1 * a), np.array(c0 + c1 * b)), node.inputs)]
    first, second = f"{node.name}.shift", f"{node.name}.square"
    return [
        Node(first, Affine(np.array(a), np.array(b + c1 / (4 * c2))), node.inputs),
        Node(second, Square(), (first,)),
        Node(node.name, Affine(np.array(2 * c2), np.array(c0 - c2 - c1 * c1 / (8 * c2))), (second,)),
    ]


def _takes(before: object, readers: list[str], name: str) -> bool:
    """Whether a layer makes this value and one node only reads it."""
    return isinstance(before, Linear) and readers.count(name) == 1
