"""`check`: what the compiler says of a model before it compiles it: which operators, which are supported, how deep."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import catalogue
from lattice.fhe.compiler.activations import levels
from lattice.fhe.compiler.graph import Graph, Operation
from lattice.fhe.compiler.importers import Imported, load
from lattice.fhe.compiler.operations import (
    Activation,
    Composite,
    Linear,
    Matrix,
    Permute,
    Power,
    Product,
    Reshape,
    Series,
    Square,
)
from lattice.fhe.compiler.passes import simplify

TYPICAL = 27
"""Degree that a fitted activation is counted with before calibration knows better: five levels."""
DEEP = 20
"""Levels from which on no parameters without bootstrapping are fast."""


class OperatorCount(msgspec.Struct, frozen=True):
    """One operator of the model."""

    name: str
    count: int
    support: str
    """As `catalogue.Support`."""
    limits: str = ""


class Unsupported(msgspec.Struct, frozen=True):
    """One operator that cannot be compiled, and why."""

    operator: str
    count: int
    nodes: tuple[str, ...]
    reason: str
    instead: str


class CheckReport(msgspec.Struct, frozen=True):
    """Plain data for `lattice models check`."""

    supported: bool
    name: str = ""
    operators: tuple[OperatorCount, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    features: tuple[int, ...] = ()
    """The shape of one sample."""
    results: int = 0
    parameters: int = 0
    """Numbers in the layers, after merging."""
    layers: tuple[str, ...] = ()
    """What is left after merging, in words."""
    depth: int = 0
    """Multiplications in a row, the last layer included; fitted activations counted with a typical degree."""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    """The client's steps."""
    message: str = ""
    suggestions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


def check(model: Any, sample: Any = None) -> CheckReport:
    """A report on any model, of a file or an object; only a file that is no model at all raises (`model_invalid`)."""
    try:
        imported = load(model, sample)
        simple = simplify(imported)
    except LatticeError as error:
        if error.code != "model_unsupported":
            raise
        return _refused(error)
    graph = simple.graph
    return CheckReport(
        supported=True,
        name=graph.name,
        operators=_operators(imported.operators),
        features=imported.feature_shape,
        results=graph.output_shape[0] if graph.output_shape else 1,
        parameters=sum(_parameters(node.operation) for node in graph.nodes),
        layers=tuple(f"{node.name}: {_words(node.operation)}" for node in graph.nodes),
        depth=_depth(graph),
        before=tuple(type(step).__name__ for step in simple.before),
        after=tuple(type(step).__name__ for step in simple.after),
        message="Every operator is supported.",
        suggestions=tuple(_suggestions(simple)),
    )


def _refused(error: LatticeError) -> CheckReport:
    found = tuple(
        Unsupported(each["operator"], each["count"], tuple(each["nodes"]), each["reason"], each["instead"])
        for each in error.details.get("unsupported", ())
    )
    instead = tuple(dict.fromkeys(f"{each.operator}: {each.instead}" for each in found if each.instead))
    operators = _operators(Counter(error.details.get("operators", {})))
    return CheckReport(False, operators=operators, unsupported=found, message=error.message, suggestions=instead)


def _operators(counts: Counter[str]) -> tuple[OperatorCount, ...]:
    rows = []
    for name, count in counts.most_common():
        row = next((row for framework in catalogue.FRAMEWORKS if (row := catalogue.find(framework, name))), None)
        support = row.support if row else catalogue.Support.NO
        rows.append(OperatorCount(name, count, str(support), row.limits if row else ""))
    return tuple(rows)


def _parameters(operation: Operation) -> int:
    if isinstance(operation, Matrix):
        return operation.sparse.entries + operation.sparse.outputs
    arrays = (getattr(operation, name, None) for name in ("weight", "bias", "scale", "shift"))
    return sum(int(array.size) for array in arrays if array is not None)


def _words(operation: Operation) -> str:
    if isinstance(operation, Activation):
        return operation.function.replace("_", " ")
    if isinstance(operation, Composite):
        return "a function" if operation.degree is None else f"a polynomial of degree {operation.degree}"
    if isinstance(operation, Power):
        return f"power {operation.exponent}"
    name = type(operation).__name__.lower()
    weight = getattr(operation, "weight", None)
    return name if weight is None else f"{name} {'×'.join(map(str, weight.shape))}"


def _cost(operation: Operation) -> int:
    """Levels of one operation."""
    if isinstance(operation, Activation):
        return levels(TYPICAL)
    if isinstance(operation, Composite | Series):
        return levels(operation.degree or TYPICAL)
    if isinstance(operation, Power):
        return levels(operation.exponent)
    if isinstance(operation, Reshape | Permute):
        return 0
    return int(isinstance(operation, Linear | Square | Product))


def _depth(graph: Graph) -> int:
    depths = {graph.input: 0}
    for node in graph.nodes:
        depths[node.name] = max(depths[name] for name in node.inputs) + _cost(node.operation)
    return depths[graph.output]


def _suggestions(model: Imported) -> list[str]:
    graph = model.graph
    found = []
    fitted = [node for node in graph.nodes if isinstance(node.operation, Activation | Composite)]
    if fitted:
        found.append(
            f"{len(fitted)} activations are fitted by polynomials of several levels each. Training with squares "
            "(x²) in their place makes the model faster and exact."
        )
    if _depth(graph) > DEEP:
        found.append(f"The model is {_depth(graph)} levels deep: expect large parameters, or train a shallower one.")
    loose = [node.name for node in graph.nodes if type(node.operation).__name__ == "Affine"]
    if loose:
        found.append(f"The scaling at {', '.join(loose[:8])} stands alone and costs a level: put it beside a layer.")
    return found
