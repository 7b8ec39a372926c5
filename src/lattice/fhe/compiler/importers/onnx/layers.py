"""Layers with weights: Gemm, MatMul, Conv, ConvTranspose, BatchNormalization, pooling."""

from __future__ import annotations

import numpy as np

from lattice.fhe.compiler.graph import Real
from lattice.fhe.compiler.importers.onnx.arithmetic import ZERO, add
from lattice.fhe.compiler.importers.onnx.builder import MOVED, Builder, Call, Tensor, Value
from lattice.fhe.compiler.operations import Affine, AveragePool, Convolution, Dense, Matrix, Permute, Sparse
from lattice.fhe.compiler.operations.sizes import LARGEST_TENSOR, bounded, refusal, size
from lattice.fhe.compiler.operations.windows import Pads, Pair


def gemm(build: Builder, call: Call) -> Value:
    if call.attributes.get("transA"):
        raise refusal("it transposes the batch (transA).")
    tensor, weight = call.tensor(0), call.real(1) * float(call.attributes.get("alpha", 1.0))
    if weight.ndim != 2 or len(tensor.shape) != 1:
        raise refusal(f"it multiplies a tensor of shape {tensor.shape} by a weight of shape {weight.shape}.")
    weight = weight if call.attributes.get("transB") else weight.T
    beta = float(call.attributes.get("beta", 1.0))
    if call.has(2) and isinstance(call.inputs[2], Tensor):
        product = build.add(call.name, Dense(weight, np.zeros(len(weight))), tensor)
        other = build.add(call.name, Affine(np.array(beta), ZERO), call.tensor(2))
        return add(build, Call(call.name, "Add", (product, other), {}, call.opset))
    bias = np.zeros(len(weight))
    if call.has(2):
        bias = beta * _row(call.real(2), len(weight))
    return build.add(call.name, Dense(weight, bias), tensor)


def _row(bias: Real, outputs: int) -> Real:
    try:
        return np.broadcast_to(bias, (1, outputs)).reshape(-1)
    except ValueError:
        raise refusal(f"its bias has the shape {bias.shape} and the layer {outputs} outputs.") from None


def matmul(build: Builder, call: Call) -> Value:
    left, right = call.inputs[:2]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        raise refusal("both of its sides depend on the model's input; one must be constant.")
    if isinstance(left, Tensor):
        return _times(build, call, left, call.real(1))
    tensor, weight = call.tensor(1), call.real(0)
    if len(tensor.shape) < 2 or weight.ndim < 2:
        raise refusal("it sums over the batch.")
    # W·x = (xᵀ·Wᵀ)ᵀ over the last two axes.
    swap = (*range(len(tensor.shape) - 2), len(tensor.shape) - 1, len(tensor.shape) - 2)
    turned = build.add(call.name, Permute(swap), tensor)
    return build.add(call.name, Permute(swap), _times(build, call, turned, np.swapaxes(weight, -1, -2)))


def _times(build: Builder, call: Call, tensor: Tensor, weight: Real) -> Tensor:
    """x·W over the last axis of x."""
    vector = weight.ndim == 1
    weight = weight[:, None] if vector else weight.reshape(weight.shape[-2:]) if weight.size else weight
    if weight.ndim != 2 or not tensor.shape or weight.shape[0] != tensor.shape[-1]:
        raise refusal(f"it multiplies a tensor of shape {tensor.shape} by a weight of shape {weight.shape}.")
    shape = tensor.shape[:-1] if vector else (*tensor.shape[:-1], weight.shape[1])
    outer = size(tensor.shape[:-1])
    if outer == 1:
        result = build.add(call.name, Dense(np.ascontiguousarray(weight.T), np.zeros(weight.shape[1])), tensor)
        return build.reshape(call.name, result, shape)
    bounded(outer * weight.size, "A matrix", MOVED)
    inner = Sparse.of(weight.T, np.zeros(weight.shape[1]))
    block = np.arange(outer, dtype=np.int64)[:, None]
    sparse = Sparse(
        (block * inner.outputs + inner.rows).ravel(),
        (block * inner.inputs + inner.columns).ravel(),
        np.tile(inner.values, outer),
        np.zeros(outer * inner.outputs),
        outer * inner.inputs,
    )
    return build.add(call.name, Matrix(sparse, shape), tensor)


def batch_normalisation(build: Builder, call: Call) -> Value:
    if call.attributes.get("training_mode"):
        raise refusal("it is in training mode; export the model for inference.")
    tensor = call.tensor()
    scale, shift, mean, variance = (call.real(index).ravel() for index in range(1, 5))
    if not tensor.shape or len({len(scale), len(shift), len(mean), len(variance), tensor.shape[0]}) != 1:
        raise refusal("its parameters do not fit the channels.")
    if np.any(variance < 0):
        raise refusal("its variance is negative.")
    factor = scale / np.sqrt(variance + float(call.attributes.get("epsilon", 1e-5)))
    spread = (-1, *(1,) * (len(tensor.shape) - 1))
    return build.add(call.name, Affine(factor.reshape(spread), (shift - mean * factor).reshape(spread)), tensor)


def convolution(build: Builder, call: Call) -> Value:
    tensor, weight = _two_axes(build, call), call.real(1)
    weight = weight[:, :, None, :] if weight.ndim == 3 else weight
    if weight.ndim != 4:
        raise refusal(f"its weight has the shape {weight.shape}; one or two spatial axes are supported.")
    kernel: Pair = (weight.shape[2], weight.shape[3])
    bias = call.real(2).ravel() if call.has(2) else np.zeros(len(weight))
    if len(bias) != len(weight):
        raise refusal("its bias does not fit its weight.")
    stride, dilation, pads = _window(call, kernel, tensor.shape[1:])
    operation = Convolution(weight, bias, stride, pads, dilation, int(call.attributes.get("group", 1)))
    return _back(build, call, build.add(call.name, operation, tensor))


def transposed_convolution(build: Builder, call: Call) -> Value:
    tensor, weight = _two_axes(build, call), call.real(1)
    weight = weight[:, :, None, :] if weight.ndim == 3 else weight
    groups = int(call.attributes.get("group", 1))
    if weight.ndim != 4 or weight.shape[0] != tensor.shape[0] or groups < 1 or weight.shape[0] % groups:
        raise refusal(f"its weight of shape {weight.shape} does not fit a tensor of shape {tensor.shape}.")
    if call.attributes.get("output_shape") or call.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise refusal("it gives output_shape or auto_pad; give pads.")
    kernel: Pair = (weight.shape[2], weight.shape[3])
    stride, dilation, pads = _window(call, kernel, tensor.shape[1:])
    extra = _pair(call.attributes.get("output_padding", (0, 0)), 0)
    shape = (
        weight.shape[1] * groups,
        *(
            (tensor.shape[1 + a] - 1) * stride[a] + (kernel[a] - 1) * dilation[a] + 1 + extra[a] - pads[a] - pads[a + 2]
            for a in (0, 1)
        ),
    )
    bounded(size(shape), "A tensor", LARGEST_TENSOR)
    # It is the transpose of the convolution that leads from its output to its input.
    forward = Convolution(weight, np.zeros(len(weight)), stride, pads, dilation, groups)
    if min(shape) < 1 or forward.shape(shape) != tensor.shape:
        raise refusal("its padding does not fit its stride.")
    matrix = forward.matrix(shape)
    bias = call.real(2).ravel() if call.has(2) else np.zeros(shape[0])
    full = np.repeat(bias, size(shape[1:]))
    sparse = Sparse(matrix.columns, matrix.rows, matrix.values, full, matrix.outputs)
    return _back(build, call, build.add(call.name, Matrix(sparse, shape), tensor))


def average_pool(build: Builder, call: Call) -> Value:
    tensor = _two_axes(build, call)
    kernel = _pair(call.attributes.get("kernel_shape", ()), 1)
    stride, dilation, pads = _window(call, kernel, tensor.shape[1:])
    include = bool(call.attributes.get("count_include_pad", 0))
    operation = AveragePool(kernel, stride, pads, dilation, include, bool(call.attributes.get("ceil_mode", 0)))
    return _back(build, call, build.add(call.name, operation, tensor))


def global_average_pool(build: Builder, call: Call) -> Value:
    tensor = _two_axes(build, call)
    height, width = tensor.shape[1:]
    return _back(build, call, build.add(call.name, AveragePool((height, width)), tensor))


def _two_axes(build: Builder, call: Call) -> Tensor:
    """The input as `[channels, height, width]`; one spatial axis becomes the width."""
    tensor = call.tensor()
    if len(tensor.shape) not in (2, 3) or 0 in tensor.shape:
        raise refusal(f"its input has the shape {tensor.shape}; one or two spatial axes are supported.")
    if len(tensor.shape) == 2:
        return build.reshape(call.name, tensor, (tensor.shape[0], 1, tensor.shape[1]))
    return tensor


def _back(build: Builder, call: Call, tensor: Tensor) -> Tensor:
    """One spatial axis again where there was one."""
    if len(call.tensor().shape) == 2:
        return build.reshape(call.name, tensor, (tensor.shape[0], tensor.shape[2]))
    return tensor


def _pair(values: object, default: int) -> Pair:
    numbers = tuple(int(value) for value in values) if isinstance(values, list | tuple) else ()
    if len(numbers) == 1:
        return default, numbers[0]
    if len(numbers) != 2:
        raise refusal("one or two spatial axes are supported.")
    return numbers[0], numbers[1]


def _window(call: Call, kernel: Pair, grid: tuple[int, ...]) -> tuple[Pair, Pair, Pads]:
    """Stride, dilation and padding, `auto_pad` resolved."""
    stride = _pair(call.attributes.get("strides", (1, 1)), 1)
    dilation = _pair(call.attributes.get("dilations", (1, 1)), 1)
    pads = tuple(int(value) for value in call.attributes.get("pads", (0, 0, 0, 0)))
    if len(pads) == 2:
        pads = (0, pads[0], 0, pads[1])
    automatic = call.attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(stride, dilation, kernel, grid, automatic == "SAME_UPPER")
    elif automatic == "VALID":
        pads = (0, 0, 0, 0)
    if len(pads) != 4:
        raise refusal("its padding does not fit one or two spatial axes.")
    return stride, dilation, pads


def _same(stride: Pair, dilation: Pair, kernel: Pair, grid: tuple[int, ...], upper: bool) -> tuple[int, ...]:
    begin, end = [], []
    for axis in (0, 1):
        if stride[axis] < 1:
            raise refusal("its stride is not positive.")
        windows = -(-grid[axis] // stride[axis])
        needed = (windows - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        room = max(0, needed - grid[axis])
        less = room // 2
        begin.append(less if upper else room - less)
        end.append(room - less if upper else less)
    return (*begin, *end)
