"""Layout moves down past functions of single entries, towards a layer that takes it in; squares are recognised."""

from __future__ import annotations

import numpy as np

from lattice.fhe.compiler.graph import Graph, Node, Operation
from lattice.fhe.compiler.operations import (
    Activation,
    Affine,
    Composite,
    Matrix,
    Permute,
    Power,
    Product,
    Reshape,
    Series,
    Square,
)
from lattice.fhe.compiler.passes.edit import Edit

ENTRYWISE = (Activation, Composite, Power, Series, Square)


def commute(graph: Graph) -> tuple[Graph, bool]:
    """The graph, and whether anything changed."""
    edit = Edit(graph)
    for old in edit.walk():
        node = _recognised(edit, old)
        before = edit.maker(node.inputs[0])
        if before is not None and isinstance(node.operation, ENTRYWISE) and moves(before.operation):
            _exchange(edit, before, node, before.operation)
        elif before is not None and isinstance(node.operation, Square) and _scales(before.operation):
            # (s·x)² = s²·x²: the factor goes on to the next layer, and no level is spent on it. Only where no layer
            # before could take it: merging comes first.
            assert isinstance(before.operation, Affine)
            _exchange(edit, before, node, Affine(before.operation.scale**2, np.zeros(())))
        elif (
            before is not None and isinstance(before.operation, Series) and _takes_in(before.operation, node.operation)
        ):
            assert isinstance(node.operation, Affine)
            edit.drop(before.name)
            edit.put(node.name, _stretched(before.operation, node.operation), *before.inputs)
        else:
            edit.keep(node)
    return edit.done(), edit.changed


def _recognised(edit: Edit, node: Node) -> Node:
    """x·x, x to the power of two and T_2 written out are squares."""
    operation = node.operation
    same = isinstance(operation, Product) and node.inputs[0] == node.inputs[1]
    power = isinstance(operation, Power) and operation.exponent == 2
    if same or power or (isinstance(operation, Series) and operation.is_square):
        edit.changed = True
        return Node(node.name, Square(), node.inputs[:1])
    return node


def _exchange(edit: Edit, before: Node, function: Node, behind: Operation) -> None:
    """f(before(x)) = behind(f(x)): the function keeps its name, and whoever reads it reads what is behind it."""
    edit.drop(before.name)
    edit.put(function.name, function.operation, *before.inputs)
    edit.put(before.name, behind, function.name)
    edit.stand(function.name, before.name)


def moves(operation: object) -> bool:
    """Whether a layer puts one entry in each place and changes none."""
    if isinstance(operation, Matrix):
        sparse = operation.sparse
        return sparse.entries == sparse.outputs == len(np.unique(sparse.rows)) and bool(
            (sparse.values == 1).all() and not sparse.bias.any()
        )
    return isinstance(operation, Reshape | Permute)


def _takes_in(series: Series, operation: Operation) -> bool:
    """a·f(x) + b is a series as well, where a and b are numbers; a square and what is behind it stay apart."""
    return series.degree > 2 and isinstance(operation, Affine) and operation.scale.size == operation.shift.size == 1


def _stretched(series: Series, affine: Affine) -> Series:
    factor, shift = float(affine.scale.item()), float(affine.shift.item())
    first, *others = (factor * value for value in series.coefficients)
    return Series((first + shift, *others), series.interval)


def _scales(operation: object) -> bool:
    """A plain factor, without a shift, on a tensor of the same shape."""
    return isinstance(operation, Affine) and operation.scale.size == operation.shift.size == 1 and not operation.shift
