"""Functions of one number that a model writes in several steps (GELU by Erf, SiLU as x·sigmoid(x), a polynomial as
sums of powers) become one operation, so that one polynomial is fitted and not several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lattice.fhe.compiler.graph import Graph, Node, Operation
from lattice.fhe.compiler.operations import (
    FUNCTIONS,
    Activation,
    Affine,
    Composite,
    Difference,
    Power,
    Product,
    Series,
    Square,
    Sum,
)
from lattice.fhe.compiler.passes.edit import Edit

NAMED = ("gelu", "gelu_tanh", "silu", "mish", "hard_swish", "relu", "softplus", "sigmoid", "tanh", "softsign")
HIGHEST = 63
"""Degree of a polynomial that is taken as a whole."""
LONGEST = 64
"""Nodes of one formula."""
_X = "x"


@dataclass(frozen=True)
class Formula:
    """A value as a function of `root`, entry by entry."""

    root: str
    nodes: tuple[Node, ...]
    degree: int | None
    """None where it is no polynomial."""
    functions: int
    pairs: int

    @property
    def last(self) -> str:
        """The name of the result among the nodes."""
        return self.nodes[-1].name if self.nodes else _X


def recognise(graph: Graph) -> tuple[Graph, bool]:
    """The graph, and whether anything changed."""
    edit = Edit(graph)
    formulas: dict[str, Formula] = {}
    for node in edit.walk():
        formula = _formula(edit, formulas, node)
        if formula is not None and _worth(formula, node):
            formulas[node.name] = _replace(edit, formula, node)
            continue
        edit.keep(node)
        if formula is not None:
            formulas[node.name] = formula
    return edit.done(), edit.changed


def _formula(edit: Edit, known: dict[str, Formula], node: Node) -> Formula | None:
    """What the node computes, as a function of the value that all its inputs are functions of."""
    operation = node.operation
    parts = [known.get(name) or Formula(name, (), 1, 0, 0) for name in node.inputs]
    if any(len(part.nodes) > LONGEST for part in parts):
        return None
    if isinstance(operation, Affine):
        shape = edit.shape(parts[0].root)
        if operation.scale.size != 1 or operation.shift.size != 1 or operation.shape(shape) != shape:
            return None
        flat = Affine(operation.scale.reshape(()), operation.shift.reshape(()))
        return _with(parts[0], node.name, flat, parts[0].degree)
    if isinstance(operation, Activation | Composite | Series | Square | Power):
        return _with(parts[0], node.name, operation, _degree(operation, parts[0].degree))
    if isinstance(operation, Sum | Difference | Product):
        return _pair(known, node, parts)
    return None


def _degree(operation: Operation, inner: int | None) -> int | None:
    own = None
    if isinstance(operation, Power):
        own = operation.exponent
    elif isinstance(operation, Series | Composite):
        own = operation.degree
    elif isinstance(operation, Square):
        own = 2
    return None if own is None or inner is None else own * inner


def _with(part: Formula, name: str, operation: Operation, degree: int | None) -> Formula:
    function = isinstance(operation, Activation) or (isinstance(operation, Composite) and operation.degree is None)
    node = Node(name, operation, (part.last,))
    return Formula(part.root, (*part.nodes, node), degree, part.functions + function, part.pairs)


def _pair(known: dict[str, Formula], node: Node, parts: list[Formula]) -> Formula | None:
    left, right = parts
    if left.root != right.root:
        # One side may be the value that the other is a function of, and a function of something before itself.
        names = node.inputs
        for place in (0, 1):
            if parts[place].root == names[1 - place]:
                parts[1 - place] = Formula(names[1 - place], (), 1, 0, 0)
        left, right = parts
        if left.root != right.root:
            return None
    nodes = {part.name: part for side in (left, right) for part in side.nodes}
    degrees = (left.degree, right.degree)
    degree = None
    if degrees[0] is not None and degrees[1] is not None:
        degree = degrees[0] + degrees[1] if isinstance(node.operation, Product) else max(degrees[0], degrees[1])
    joined = Node(node.name, node.operation, (left.last, right.last))
    return Formula(
        left.root, (*nodes.values(), joined), degree, left.functions + right.functions, left.pairs + right.pairs + 1
    )


def _worth(formula: Formula, node: Node) -> bool:
    """Only where it saves something: a pair joined, or one function applied to another."""
    if len(formula.nodes) < 2:
        return False
    if formula.degree is not None:
        return isinstance(node.operation, Sum | Difference) and 1 < formula.degree <= HIGHEST
    if formula.functions == 0:
        return False
    if isinstance(node.operation, Sum | Difference | Product):
        return True
    return isinstance(node.operation, Activation) and formula.functions > 1


def _replace(edit: Edit, formula: Formula, node: Node) -> Formula:
    """The function in one node, and what factor it has in another."""
    operation, factor = _operation(formula)
    edit.changed = True
    if factor == 1:
        edit.put(node.name, operation, formula.root)
        return _start(formula.root, node.name, operation)
    inner = f"{node.name}.{getattr(operation, 'function', 'function')}"
    scaling = Affine(np.array(factor), np.zeros(()))
    edit.put(inner, operation, formula.root)
    edit.put(node.name, scaling, inner)
    return _with(_start(formula.root, inner, operation), node.name, scaling, None)


def _operation(formula: Formula) -> tuple[Operation, float]:
    """The named function that this is a multiple of, or the steps themselves."""
    composite = Composite(Graph(_X, (), formula.nodes, formula.last), formula.degree)
    if formula.degree is not None:
        return composite, 1.0
    x = np.linspace(-12, 12, 193)
    with np.errstate(all="ignore"):
        values = composite.forward(x)
        for name in NAMED:
            named = FUNCTIONS[name](x)
            factor = float(values @ named / (named @ named))
            if np.isfinite(factor) and np.allclose(values, factor * named, atol=1e-6, rtol=1e-6):
                # Exporters write constants as float32, so that a factor of 1 may be off by an ulp of those.
                return Activation(name), 1.0 if abs(factor - 1) < 1e-6 else factor
    return composite, 1.0


def _start(root: str, name: str, operation: Operation) -> Formula:
    functions = int(not (isinstance(operation, Composite) and operation.degree is not None))
    degree = operation.degree if isinstance(operation, Composite) else None
    return Formula(root, (Node(name, operation, (_X,)),), degree, functions, 0)
