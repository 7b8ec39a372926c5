"""Merging that keeps a convolution a convolution: batch normalisation, layout, pooling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations import Affine, AveragePool, Convolution, Dense, Linear, Matrix, Permute, Reshape


def folded(first: Linear, second: Linear, shape: Shape, between: Shape) -> Linear | None:
    """One layer of the first's or second's own kind, where there is one."""
    if isinstance(second, Reshape):
        if isinstance(first, Reshape):
            return second
        return replace(first, output=second.output) if isinstance(first, Matrix) else None
    if isinstance(first, Reshape) and isinstance(second, Dense | Matrix):
        return second
    if isinstance(first, Permute) and isinstance(second, Permute):
        return Permute(tuple(first.axes[axis] for axis in second.axes))
    if isinstance(first, Affine) and isinstance(second, Affine):
        return _both(first, second, shape)
    if isinstance(second, Affine) and isinstance(first, Dense) and second.shape(between) == between:
        scale, shift = (np.broadcast_to(part, between) for part in (second.scale, second.shift))
        return Dense(first.weight * scale[:, None], first.bias * scale + shift)
    if isinstance(first, Affine) and isinstance(second, Dense) and first.shape(shape) == shape:
        scale, shift = (np.broadcast_to(part, shape).ravel() for part in (first.scale, first.shift))
        return Dense(second.weight * scale, second.bias + second.weight @ shift)
    if isinstance(second, Affine) and isinstance(first, Convolution):
        return _scaled_after(first, second, between)
    if isinstance(first, Affine) and isinstance(second, Convolution):
        return _scaled_before(first, second, between)
    return None


def _both(first: Affine, second: Affine, shape: Shape) -> Affine | None:
    if first.shape(shape) != shape or second.shape(shape) != shape:
        return None
    return Affine(first.scale * second.scale, first.shift * second.scale + second.shift)


def _channels(affine: Affine, shape: Shape) -> tuple[Real, Real] | None:
    """Scale and shift for each channel, where they do not differ within one."""
    if affine.shape(shape) != shape:
        return None
    parts = []
    for part in (affine.scale, affine.shift):
        spread = part.reshape((1,) * (3 - part.ndim) + part.shape)
        if spread.shape[1:] != (1, 1):
            return None
        parts.append(np.broadcast_to(spread[:, 0, 0], shape[0]).astype(np.float64))
    return parts[0], parts[1]


def _scaled_after(conv: Convolution, affine: Affine, between: Shape) -> Convolution | None:
    channels = _channels(affine, between)
    if channels is None:
        return None
    scale, shift = channels
    return replace(conv, weight=conv.weight * scale[:, None, None, None], bias=conv.bias * scale + shift)


def _scaled_before(affine: Affine, conv: Convolution, shape: Shape) -> Convolution | None:
    channels = _channels(affine, shape)
    if channels is None or (np.any(channels[1]) and any(conv.pads)):
        return None  # what is padded is not shifted
    scale, shift = channels
    out, per_group = conv.weight.shape[:2]
    group = np.arange(out) // (out // conv.groups)
    source = group[:, None] * per_group + np.arange(per_group)
    bias = conv.bias + np.einsum("oikl,oi->o", conv.weight, shift[source])
    return replace(conv, weight=conv.weight * scale[source][:, :, None, None], bias=bias)


def pooled(pool: AveragePool, conv: Convolution, shape: Shape) -> Convolution | None:
    """Pooling and then a convolution as one convolution, where padding means the same to both."""
    if any(pool.pads) or pool.ceil or pool.dilation != (1, 1) or conv.dilation != (1, 1):
        return None
    grid, pads = shape[1:], []
    for axis in (0, 1):
        kernel, step = pool.kernel[axis], pool.stride[axis]
        rows = (grid[axis] - kernel) // step + 1
        begin, end = conv.pads[axis], conv.pads[axis + 2]
        # Padded means must be means of padding only, before the grid and behind it.
        if (begin and kernel > step) or (end and rows * step < grid[axis]):
            return None
        pads.append((begin * step, (rows + end - 1) * step + kernel - grid[axis]))
    spread = np.full(pool.kernel, 1 / (pool.kernel[0] * pool.kernel[1]))
    weight = _spread(conv.weight, spread, pool.stride)
    stride = (conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1])
    return _fitted(replace(conv, weight=weight, stride=stride), pads, conv.shape(pool.shape(shape)), shape)


def convolved(conv: Convolution, pool: AveragePool, shape: Shape, between: Shape) -> Convolution | None:
    """A convolution and then pooling as one convolution, where that saves work and the pooling is not padded."""
    if any(pool.pads) or pool.ceil or pool.dilation != (1, 1) or conv.dilation != (1, 1):
        return None
    if _growth(conv, pool) > 1.25 * pool.stride[0] * pool.stride[1]:
        return None
    spread = np.full(pool.kernel, 1 / (pool.kernel[0] * pool.kernel[1]))
    # The taps of one window lie `stride` apart in the convolution's input.
    weight = _spread(np.broadcast_to(spread, (*conv.weight.shape[:2], *pool.kernel)), conv.weight, conv.stride)
    stride = (conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1])
    wanted, pads = pool.shape(between), []
    for axis in (0, 1):
        needed = (wanted[1 + axis] - 1) * stride[axis] + weight.shape[2 + axis]
        pads.append((conv.pads[axis], needed - shape[1 + axis] - conv.pads[axis]))
    return _fitted(replace(conv, weight=weight, stride=stride), pads, wanted, shape)


def _growth(conv: Convolution, pool: AveragePool) -> float:
    sides = [
        ((pool.kernel[axis] - 1) * conv.stride[axis] + conv.weight.shape[2 + axis]) / conv.weight.shape[2 + axis]
        for axis in (0, 1)
    ]
    return float(sides[0] * sides[1])


def _spread(coarse: Real, fine: Real, stride: tuple[int, int]) -> Real:
    """Σ coarse[a, b]·(fine shifted by (a, b)·stride): the kernel of one after the other."""
    height, width = fine.shape[-2:]
    rows, columns = coarse.shape[2:]
    out = np.zeros((*coarse.shape[:2], (rows - 1) * stride[0] + height, (columns - 1) * stride[1] + width))
    for a in range(rows):
        for b in range(columns):
            top, left = a * stride[0], b * stride[1]
            out[:, :, top : top + height, left : left + width] += coarse[:, :, a, b, None, None] * fine
    return out


def _fitted(conv: Convolution, pads: list[tuple[int, int]], wanted: Shape, shape: Shape) -> Convolution | None:
    """With padding behind such that the output has the shape it had."""
    (top, bottom), (left, right) = pads
    if min(top, bottom, left, right) < 0:
        bottom, right = max(0, bottom), max(0, right)
    result = replace(conv, pads=(top, left, bottom, right))
    return result if result.shape(shape) == wanted else None
