"""Functions of one number."""

from __future__ import annotations

import math

import numpy as np

from lattice.fhe.compiler.graph import Operation
from lattice.fhe.compiler.importers.onnx.arithmetic import ZERO
from lattice.fhe.compiler.importers.onnx.builder import Builder, Call, Tensor, Value, per_sample, scalar
from lattice.fhe.compiler.operations import Activation, Affine, Sum
from lattice.fhe.compiler.operations.sizes import refusal

PLAIN = {
    "Relu": "relu",
    "Erf": "erf",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "HardSwish": "hard_swish",
    "Mish": "mish",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Abs": "abs",
    "Sin": "sin",
    "Cos": "cos",
    "Sigmoid": "sigmoid",
}
"""Functions without parameters."""

PARAMETERS: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "LeakyRelu": ("leaky_relu", (("alpha", 0.01),)),
    "HardSigmoid": ("hard_sigmoid", (("alpha", 0.2), ("beta", 0.5))),
    "Elu": ("elu", (("alpha", 1.0),)),
    "Celu": ("celu", (("alpha", 1.0),)),
    "Selu": ("selu", (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875))),
}
"""Functions with parameters, and their defaults in ONNX."""


def plain(build: Builder, call: Call) -> Value:
    return build.add(call.name, Activation(PLAIN[call.operator]), call.tensor())


def parametric(build: Builder, call: Call) -> Value:
    function, defaults = PARAMETERS[call.operator]
    parameters = tuple(float(call.attributes.get(name, default)) for name, default in defaults)
    return build.add(call.name, Activation(function, parameters), call.tensor())


def gelu(build: Builder, call: Call) -> Value:
    name = "gelu_tanh" if call.attributes.get("approximate") == "tanh" else "gelu"
    return build.add(call.name, Activation(name), call.tensor())


def swish(build: Builder, call: Call) -> Value:
    """x·sigmoid(αx) = silu(αx)/α."""
    alpha, tensor = float(call.attributes.get("alpha", 1.0)), call.tensor()
    if alpha == 1:
        return build.add(call.name, Activation("silu"), tensor)
    if alpha == 0:
        return build.add(call.name, Affine(np.array(0.5), ZERO), tensor)
    steps: list[Operation] = [Affine(np.array(alpha), ZERO), Activation("silu"), Affine(np.array(1 / alpha), ZERO)]
    return build.each(call.name, tensor, steps)


def parametric_relu(build: Builder, call: Call) -> Value:
    """slope·x + (1 − slope)·relu(x): the slope may differ from channel to channel."""
    tensor = call.tensor()
    slope = per_sample(call.constant(1), tensor)
    if slope.size == 1:
        return build.add(call.name, Activation("leaky_relu", (float(slope.ravel()[0]),)), tensor)
    straight = build.add(call.name, Affine(slope, ZERO), tensor)
    bent = build.each(call.name, tensor, [Activation("relu"), Affine(1 - slope, ZERO)])
    return build.add(call.name, Sum(), straight, bent)


def clip(build: Builder, call: Call) -> Value:
    low, high = call.number("min", 1), call.number("max", 2)
    return _clipped(build, call, call.tensor(), -math.inf if low is None else low, math.inf if high is None else high)


def bound(build: Builder, call: Call) -> Value:
    """Max and Min of a tensor and one number."""
    values = [value for value in call.inputs if value is not None]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(values) != 2 or len(tensors) != 1:
        # max(a, b) = b + relu(a − b) would need the range of every difference: two tensors are not taken.
        raise refusal("it must compare one tensor with one constant.")
    place = 1 if isinstance(values[0], Tensor) else 0
    limit = scalar(call.constant(place))
    low, high = (limit, math.inf) if call.operator == "Max" else (-math.inf, limit)
    return _clipped(build, call, tensors[0], low, high)


def _clipped(build: Builder, call: Call, tensor: Tensor, low: float, high: float) -> Tensor:
    if (low, high) == (-math.inf, math.inf):
        return tensor
    operation = Activation("relu") if (low, high) == (0, math.inf) else Activation("clip", (low, high))
    return build.add(call.name, operation, tensor)
