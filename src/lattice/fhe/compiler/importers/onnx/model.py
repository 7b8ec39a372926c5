"""Reading a whole ONNX model: node after node, everything that is unsupported gathered and reported at once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import catalogue
from lattice.fhe.compiler.client_part import After, ArgMax, Largest, Threshold
from lattice.fhe.compiler.graph import Graph, Shape
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.importers.onnx.builder import Builder, Call, Tensor, Value
from lattice.fhe.compiler.importers.onnx.constants import fold
from lattice.fhe.compiler.importers.onnx.file import array, invalid, normal, parse
from lattice.fhe.compiler.importers.onnx.operators import HANDLERS
from lattice.fhe.compiler.importers.unsupported import Findings
from lattice.fhe.compiler.operations import Reshape
from lattice.fhe.compiler.operations.sizes import LARGEST_TENSOR, bounded, size

DOMAINS = {"": "onnx", "ai.onnx": "onnx", "ai.onnx.ml": "ai.onnx.ml"}
MALFORMED = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What numpy and Python raise where an attribute has another type or value than its operator says."""
OLDEST, NEWEST = 7, 26
"""Operator sets whose meaning the importer knows."""


def load_onnx(source: Any) -> Imported:
    """A model from a path, bytes or a `ModelProto`; `model_unsupported` lists everything that cannot be compiled."""
    return Reader(parse(source)).read()


class Unknown:
    """A value that an unsupported node would have made."""


class Reader:
    """One reading of one model."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.graph
        self.build = Builder()
        self.findings = Findings("onnx")
        self.values: dict[str, Value | Unknown | None] = {}
        self.operators: Counter[str] = Counter()
        self.opset = _opset(model)

    def read(self) -> Imported:
        """The whole model."""
        self.values = {tensor.name: array(tensor) for tensor in self.graph.initializer}
        name, shape = self._input()
        self.values[name] = Tensor(name, shape)
        self.build.taken.add(name)
        for place, node in self._reached():
            self._node(place, node)
        result = self._output()
        self.findings.raise_any(self.operators)
        assert result is not None  # the findings say why otherwise
        return self._imported(name, shape, result)

    def _input(self) -> tuple[str, Shape]:
        given = [value for value in self.graph.input if value.name not in self.values]
        if len(given) != 1:
            names = ", ".join(value.name for value in given[:8]) or "none"
            raise LatticeError("model_unsupported", f"The model has {len(given)} inputs ({names}); it must have one.")
        dims = given[0].type.tensor_type.shape.dim
        if not given[0].type.HasField("tensor_type") or len(dims) < 2:
            raise LatticeError(
                "model_unsupported",
                f"The input {given[0].name!r} must be a tensor whose first axis is the batch, with features behind it.",
            )
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims[1:])
        if min(shape) < 1:
            raise LatticeError(
                "model_unsupported",
                f"The input {given[0].name!r} has an axis of unknown size beside the batch; export with fixed sizes.",
            )
        bounded(size(shape), "The input", LARGEST_TENSOR)
        self.build.batch = max(1, dims[0].dim_value)
        return given[0].name, shape

    def _reached(self) -> list[tuple[int, Any]]:
        """The nodes that the outputs depend on, in the file's order, and their places."""
        made_by: dict[str, int] = {}
        for place, node in enumerate(self.graph.node):
            for name in node.output:
                if name and (name in made_by or name in self.values):
                    raise invalid(f"The value {name!r} is made twice.")
                made_by[name] = place
        wanted = [value.name for value in self.graph.output]
        reached: set[int] = set()
        while wanted:
            place = made_by.get(wanted.pop(), -1)
            if place >= 0 and place not in reached:
                reached.add(place)
                wanted.extend(name for name in self.graph.node[place].input if name)
        return [(place, self.graph.node[place]) for place in sorted(reached)]

    def _node(self, place: int, node: Any) -> None:
        framework = DOMAINS.get(node.domain)
        operator = node.op_type if framework else f"{node.domain}.{node.op_type}"
        name = node.name or f"{node.op_type}_{place}"
        self.operators[operator] += 1
        handler = HANDLERS.get((framework or "", operator))
        try:
            results = self._results(framework, handler, node, name)
        except LatticeError as error:
            if error.code != "model_unsupported":
                raise
            self.findings.framework = framework or "onnx"
            self.findings.add(operator, name, error.message)
            results = None
        except MALFORMED as error:
            self.findings.framework = framework or "onnx"
            self.findings.add(operator, name, f"its attributes or inputs are malformed ({type(error).__name__}).")
            results = None
        except _Never:
            self.findings.framework = framework or "onnx"
            self.findings.add(operator, name)
            results = None
        for index, output in enumerate(node.output):
            if results is None:
                self.values[output] = Unknown()
            elif index < len(results):
                self.values[output] = results[index]

    def _results(self, framework: str | None, handler: Any, node: Any, name: str) -> list[Value] | None:
        """The node's outputs; None where an input is unknown, so that nothing more can be said about it."""
        inputs = [self._value(node, value) for value in node.input]
        if framework == "onnx" and node.op_type == "Constant":
            return [_constant(node)]
        constants = [value for value in inputs if isinstance(value, np.ndarray)]
        row = catalogue.find(framework or "", node.op_type)
        if inputs and len(constants) == sum(value is not None for value in inputs) and framework == "onnx":
            return list(fold(node, self.opset, constants_or_none(inputs)))
        if handler is None or row is None:
            raise _Never
        if any(isinstance(value, Unknown) for value in inputs):
            return None
        call = Call(name, node.op_type, tuple(known(inputs)), _attributes(node), self.opset, len(node.output))
        results = handler(self.build, call)
        return list(results) if isinstance(results, tuple) else [results]

    def _value(self, node: Any, name: str) -> Value | Unknown | None:
        if not name:
            return None
        if name not in self.values:
            raise invalid(f"The node {node.name or node.op_type!r} reads {name!r} before it is made.")
        return self.values[name]

    def _output(self) -> Tensor | None:
        """The one result; several outputs must be the same result with different steps of the client behind it."""
        results = []
        for output in self.graph.output:
            value = self.values.get(output.name)
            if value is None:
                raise invalid(f"The output {output.name!r} is never made.")
            if isinstance(value, np.ndarray):
                raise LatticeError("model_unsupported", f"The output {output.name!r} does not depend on the input.")
            if isinstance(value, Tensor):
                results.append(value)
        if not results:
            return None
        if len({value.name for value in results}) > 1:
            names = ", ".join(output.name for output in self.graph.output)
            raise LatticeError("model_unsupported", f"The model has several outputs ({names}); export one of them.")
        return Tensor(results[0].name, results[0].shape, _joined([value.after for value in results]))

    def _imported(self, name: str, shape: Shape, result: Tensor) -> Imported:
        after = result.after
        if len(result.shape) != 1:
            result = self.build.add("results", Reshape((size(result.shape),)), Tensor(result.name, result.shape))
        graph = Graph(name, shape, tuple(self.build.nodes), result.name, self.graph.name or "model")
        return Imported(graph, self.build.before, after, shape, self.operators)


class _Never(Exception):
    """There is no encrypted form of this operator."""


def constants_or_none(inputs: list[Value | Unknown | None]) -> list[Any]:
    """The inputs of a node that reads constants only."""
    return [value if isinstance(value, np.ndarray) else None for value in inputs]


def known(inputs: list[Value | Unknown | None]) -> list[Value | None]:
    """The inputs of a node that reads nothing unknown."""
    return [value for value in inputs if not isinstance(value, Unknown)]


def _opset(model: Any) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    opset = versions[0] if versions else 13
    if not OLDEST <= opset <= NEWEST:
        raise LatticeError(
            "model_unsupported", f"The model uses operator set {opset}; {OLDEST} to {NEWEST} are supported."
        )
    return int(opset)


def _attributes(node: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for attribute in node.attribute:
        kinds = attribute.AttributeType
        field = {
            kinds.FLOAT: "f",
            kinds.INT: "i",
            kinds.STRING: "s",
            kinds.FLOATS: "floats",
            kinds.INTS: "ints",
            kinds.STRINGS: "strings",
        }.get(attribute.type)
        if field is None:
            continue  # tensors and graphs belong to operators that are not read
        value = getattr(attribute, field)
        if field == "s":
            value = value.decode("utf-8", "replace")
        attributes[attribute.name] = list(value) if field.endswith("s") and field != "s" else value
    return attributes


def _constant(node: Any) -> Value:
    for attribute in node.attribute:
        if attribute.name == "value":
            return array(attribute.t)
        if attribute.name in ("value_float", "value_floats", "value_int", "value_ints"):
            field = {"value_float": "f", "value_floats": "floats", "value_int": "i", "value_ints": "ints"}
            return normal(np.array(getattr(attribute, field[attribute.name])))
    raise LatticeError("model_unsupported", "it holds no numbers.")


def _joined(all_steps: list[tuple[After, ...]]) -> tuple[After, ...]:
    """The numeric steps of the output that has most, and the decision of the one that makes one."""
    decisions = [steps[-1] for steps in all_steps if steps and isinstance(steps[-1], ArgMax | Threshold | Largest)]
    numeric = [
        tuple(step for step in steps if not isinstance(step, ArgMax | Threshold | Largest)) for steps in all_steps
    ]
    return (*max(numeric, key=len), *decisions[:1])
