"""Add, Sub, Mul, Div, Pow and their kin."""

from __future__ import annotations

import numpy as np

from lattice.fhe.compiler.importers.onnx.builder import Builder, Call, Tensor, Value, per_sample, scalar
from lattice.fhe.compiler.operations import Activation, Affine, Difference, Power, Product, Square, Sum
from lattice.fhe.compiler.operations.sizes import refusal

ZERO, ONE = np.zeros(()), np.ones(())


def add(build: Builder, call: Call) -> Value:
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.name == right.name:
            return build.add(call.name, Affine(np.array(2.0), ZERO), left)
        return build.add(call.name, Sum(), *build.pair(call.name, left, right))
    tensor, constant = _split(call)
    return build.add(call.name, Affine(ONE, per_sample(call.constant(constant), tensor)), tensor)


def subtract(build: Builder, call: Call) -> Value:
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return build.add(call.name, Difference(), *build.pair(call.name, left, right))
    tensor, constant = _split(call)
    shift = per_sample(call.constant(constant), tensor)
    operation = Affine(ONE, -shift) if constant == 1 else Affine(-ONE, shift)
    return build.add(call.name, operation, tensor)


def multiply(build: Builder, call: Call) -> Value:
    left, right = call.inputs
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.name == right.name:
            return build.add(call.name, Square(), left)
        return build.add(call.name, Product(), *build.pair(call.name, left, right))
    tensor, constant = _split(call)
    return build.add(call.name, Affine(per_sample(call.constant(constant), tensor), ZERO), tensor)


def divide(build: Builder, call: Call) -> Value:
    left, right = call.inputs
    if isinstance(right, Tensor):
        inverse = build.add(call.name, Activation("reciprocal"), right)
        if isinstance(left, Tensor):
            return build.add(call.name, Product(), *build.pair(call.name, left, inverse))
        return build.add(call.name, Affine(per_sample(call.constant(0), inverse), ZERO), inverse)
    divisor = per_sample(call.constant(1), call.tensor(0))
    if not np.all(divisor):
        raise refusal("it divides by a constant that is 0.")
    return build.add(call.name, Affine(1 / divisor, ZERO), call.tensor(0))


def power(build: Builder, call: Call) -> Value:
    exponent = scalar(call.constant(1))
    if exponent == 1:
        return call.tensor()
    if exponent == 2:
        return build.add(call.name, Square(), call.tensor())
    if exponent in (-1, 0.5):
        return build.add(call.name, Activation("reciprocal" if exponent == -1 else "sqrt"), call.tensor())
    if exponent != int(exponent) or not 1 <= exponent <= 64:
        raise refusal(f"its exponent is {exponent:g}; whole ones from 1 to 64, −1 and 0.5 are supported.")
    return build.add(call.name, Power(int(exponent)), call.tensor())


def negate(build: Builder, call: Call) -> Value:
    return build.add(call.name, Affine(-ONE, ZERO), call.tensor())


def total(build: Builder, call: Call) -> Value:
    """Sum of any number of inputs."""
    result = call.inputs[0]
    for value in call.inputs[1:]:
        if not isinstance(result, Tensor) and not isinstance(value, Tensor):
            result = np.add(result, value)  # type: ignore[arg-type]
        else:
            result = add(build, Call(call.name, "Add", (result, value), {}, call.opset))
    if result is None:
        raise refusal("it has no inputs.")
    return result


def mean(build: Builder, call: Call) -> Value:
    """Mean of any number of inputs."""
    summed = total(build, call)
    if not isinstance(summed, Tensor):
        return summed / len(call.inputs)
    return build.add(call.name, Affine(np.array(1 / len(call.inputs)), ZERO), summed)


def _split(call: Call) -> tuple[Tensor, int]:
    """The one tensor and the place of the constant."""
    place = 0 if isinstance(call.inputs[1], Tensor) else 1
    return call.tensor(1 - place), place
