"""Small and well-known nets with random weights, for the tests of packing and what comes after it."""

from __future__ import annotations

import numpy as np

from lattice.fhe.compiler.graph import Graph, Node, Operation, Shape
from lattice.fhe.compiler.operations import Convolution, Dense, Square


class Nets:
    """Makes layers with weights from one seed."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)

    def dense(self, out: int, inputs: int) -> Dense:
        return Dense(self.random.normal(size=(out, inputs)) / inputs**0.5, self.random.normal(size=out))

    def conv(self, out: int, inputs: int, kernel: int, stride: int = 1, pad: int = 0, groups: int = 1) -> Convolution:
        weight = self.random.normal(size=(out, inputs // groups, kernel, kernel)) / kernel
        bias = self.random.normal(size=out)
        return Convolution(weight, bias, (stride, stride), (pad, pad, pad, pad), groups=groups)

    def mlp(self) -> Graph:
        return sequence(
            (784,), self.dense(128, 784), Square(), self.dense(128, 128), Square(), self.dense(10, 128), name="mlp"
        )

    def lola(self, pad: int = 1) -> Graph:
        features = 5 * (12 + pad) ** 2
        return sequence(
            (1, 28, 28),
            self.conv(5, 1, 5, 2, pad),
            Square(),
            self.dense(100, features),
            Square(),
            self.dense(10, 100),
            name="lola",
        )

    def lenet(self) -> Graph:
        return sequence(
            (1, 28, 28),
            self.conv(32, 1, 5, 2, 2),
            Square(),
            self.conv(64, 32, 5, 2, 2),
            Square(),
            self.dense(512, 3136),
            Square(),
            self.dense(10, 512),
            name="lenet",
        )


def sequence(shape: Shape, *operations: Operation, name: str = "model") -> Graph:
    """One operation after the other, named n0, n1, …"""
    names = ["x", *(f"n{at}" for at in range(len(operations)))]
    nodes = tuple(Node(names[at + 1], operation, (names[at],)) for at, operation in enumerate(operations))
    return Graph("x", shape, nodes, names[-1], name)
