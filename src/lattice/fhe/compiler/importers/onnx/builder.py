"""The graph as it grows while an ONNX model is read: constants, and tensors that depend on the input.

Shapes of tensors are those of one sample; where ONNX counts axes, the batch is axis 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lattice.fhe.compiler.client_part import After, Before
from lattice.fhe.compiler.graph import Node, Operation, Real, Shape
from lattice.fhe.compiler.importers.onnx.file import Array
from lattice.fhe.compiler.operations import Indices, Matrix, Reshape, Sparse
from lattice.fhe.compiler.operations.sizes import LARGEST_TENSOR, bounded, broadcast, refusal, size


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph, and the client's steps that follow it, if it is a result already."""

    name: str
    shape: Shape
    after: tuple[After, ...] = ()


Value = Array | Tensor
"""Constants are arrays in ONNX's own shape, with whatever batch axis they have."""


@dataclass(frozen=True, eq=False)
class Call:
    """One node of the model: its operator, what it reads and its attributes."""

    name: str
    operator: str
    inputs: tuple[Value | None, ...]
    attributes: dict[str, Any]
    opset: int
    outputs: int = 1

    def tensor(self, index: int = 0) -> Tensor:
        """An input that must depend on the model's input."""
        value = self._at(index)
        if not isinstance(value, Tensor):
            raise refusal(f"its input {index} must come from the model's input, and is a constant.")
        return value

    def constant(self, index: int) -> Array:
        """An input that must be a constant."""
        value = self._at(index)
        if isinstance(value, Tensor):
            raise refusal(f"its input {index} must be a constant, and depends on the model's input.")
        return value

    def real(self, index: int) -> Real:
        """A constant input of numbers."""
        return real(self.constant(index))

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def integers(self, attribute: str, index: int) -> tuple[int, ...] | None:
        """A list that newer operator sets pass as an input and older ones as an attribute."""
        if self.has(index):
            return tuple(int(number) for number in self.constant(index).ravel())
        value = self.attributes.get(attribute)
        return None if value is None else tuple(int(number) for number in value)

    def number(self, attribute: str, index: int) -> float | None:
        """The same for one number."""
        if self.has(index):
            return scalar(self.constant(index))
        value = self.attributes.get(attribute)
        return None if value is None else float(value)

    def _at(self, index: int) -> Value:
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise refusal(f"its input {index} is missing.")
        return value


def real(value: Array) -> Real:
    """A constant as float64."""
    if value.dtype.kind not in "fiub":
        raise refusal("a constant holds no numbers.")
    return value.astype(np.float64)


def scalar(value: Array) -> float:
    """A constant of one entry."""
    if value.size != 1:
        raise refusal(f"a constant must be one number, and has the shape {value.shape}.")
    return float(real(value).ravel()[0])


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front, `rank` with the batch; the batch itself is refused."""
    place = axis + rank if axis < 0 else axis
    if not 0 < place < rank:
        what = "the batch axis" if place == 0 else f"axis {axis}, which does not exist"
        raise refusal(f"it works on {what}; every sample must be treated by itself.")
    return place


def per_sample(value: Array, tensor: Tensor) -> Real:
    """A constant that is broadcast against `[batch, …]`, without its batch axis."""
    rank = len(tensor.shape) + 1
    if value.ndim > rank or (value.ndim == rank and value.shape[0] != 1):
        raise refusal(f"a constant of shape {value.shape} differs from sample to sample.")
    return real(value[0] if value.ndim == rank else value)


MOVED = 1 << 24
"""Entries of all the layers together that slices, joins and the like become."""


@dataclass
class Builder:
    """Nodes made so far."""

    nodes: list[Node] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    before: tuple[Before, ...] = ()
    entries: int = 0
    batch: int = 1
    """What the model itself says of its batch; 1 where it leaves that open."""

    def add(self, name: str, operation: Operation, *inputs: Tensor) -> Tensor:
        """One more node; its shape is checked at once."""
        for value in inputs:
            if value.after:
                step = type(value.after[-1]).__name__
                raise refusal(f"it reads the result of {step}, which is done by the client after the last layer.")
        shape = operation.shape(*(value.shape for value in inputs))
        bounded(size(shape), "A tensor", LARGEST_TENSOR)
        if isinstance(operation, Matrix):
            self.entries = bounded(self.entries + operation.sparse.entries, "What moves tensors about", MOVED)
        unique, count = name, 1
        while unique in self.taken:
            count += 1
            unique = f"{name}/{count}"
        self.taken.add(unique)
        self.nodes.append(Node(unique, operation, tuple(value.name for value in inputs)))
        return Tensor(unique, shape)

    def reshape(self, name: str, tensor: Tensor, shape: Shape) -> Tensor:
        """The same entries under another shape."""
        if shape == tensor.shape:
            return tensor
        return self.add(name, Reshape(shape), tensor)

    def gather(self, name: str, tensor: Tensor, move: Callable[[Indices], Any]) -> Tensor:
        """Whatever `move` does to an array of the tensor's entries (−1 becomes a zero), as a layer."""
        index = np.arange(bounded(size(tensor.shape), "A tensor", LARGEST_TENSOR), dtype=np.int64)
        moved = np.asarray(move(index.reshape(tensor.shape)), dtype=np.int64)
        bounded(moved.size, "A tensor", LARGEST_TENSOR)
        if moved.size == index.size and np.array_equal(moved.ravel(), index):
            return self.reshape(name, tensor, moved.shape)
        return self.add(name, Matrix(Sparse.gather(moved.ravel(), index.size), moved.shape), tensor)

    def broadcast(self, name: str, tensor: Tensor, shape: Shape) -> Tensor:
        """Repeated until it has this shape."""
        if shape == tensor.shape:
            return tensor
        bounded(size(shape), "A tensor", LARGEST_TENSOR)
        return self.gather(name, tensor, lambda index: np.broadcast_to(index, shape))

    def pair(self, name: str, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Two tensors brought to one shape."""
        if len(left.shape) != len(right.shape):
            raise refusal("its two inputs have different numbers of axes, so that samples would mix.")
        shape = broadcast(left.shape, right.shape)
        return self.broadcast(name, left, shape), self.broadcast(name, right, shape)

    def each(self, name: str, tensor: Tensor, operations: Sequence[Operation]) -> Tensor:
        """Operations one after the other."""
        for operation in operations:
            tensor = self.add(name, operation, tensor)
        return tensor
