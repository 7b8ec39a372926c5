"""Operators that only move entries about, and sums over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.fhe.compiler.graph import Shape
from lattice.fhe.compiler.importers.onnx.builder import Builder, Call, Tensor, Value, axis_of, scalar
from lattice.fhe.compiler.operations import Indices, Matrix, Permute, Sparse, Square, Sum
from lattice.fhe.compiler.operations.sizes import LARGEST_TENSOR, bounded, refusal, size


def flatten(build: Builder, call: Call) -> Value:
    tensor = call.tensor()
    if tensor.after:
        return tensor  # results have one axis for the client, whatever the model calls it
    axis = int(call.attributes.get("axis", 1))
    place = axis + len(tensor.shape) + 1 if axis < 0 else axis
    if place == 1:
        return build.reshape(call.name, tensor, (size(tensor.shape),))
    if place > 1 and size(tensor.shape[: place - 1]) == 1:
        return build.reshape(call.name, tensor, (size(tensor.shape),))
    raise refusal(f"it flattens the batch together with features (axis {axis}).")


def reshape(build: Builder, call: Call) -> Value:
    tensor = call.tensor()
    if tensor.after:
        return tensor  # results have one axis for the client, whatever the model calls it
    target = call.integers("shape", 1)
    if target is None:
        raise refusal("it has no shape.")
    if not call.attributes.get("allowzero"):
        full = (1, *tensor.shape)
        target = tuple(full[i] if extent == 0 and i < len(full) else extent for i, extent in enumerate(target))
    return build.reshape(call.name, tensor, _sample_shape(target, size(tensor.shape), build.batch))


def _sample_shape(target: Shape, entries: int, batch: int) -> Shape:
    """The target without its batch axis, −1 resolved: the batch must stay what it was."""
    if target and target[0] in (-1, 1, batch) and target.count(-1) <= 1:
        rest = target[1:]
        known = size(tuple(extent for extent in rest if extent != -1))
        if -1 in rest and known > 0 and entries % known == 0:
            rest = tuple(entries // known if extent == -1 else extent for extent in rest)
        if size(rest) == entries and min(rest, default=1) >= 0:
            return rest
    raise refusal(f"its target {target} does not keep the batch in front of {entries} entries a sample.")


def squeeze(build: Builder, call: Call) -> Value:
    tensor = call.tensor()
    if tensor.after:
        return tensor
    axes = call.integers("axes", 1)
    rank = len(tensor.shape) + 1
    places = {i for i, n in enumerate(tensor.shape, 1) if n == 1} if axes is None else {axis_of(a, rank) for a in axes}
    if any(tensor.shape[place - 1] != 1 for place in places):
        raise refusal("it squeezes an axis that is not 1.")
    return build.reshape(call.name, tensor, tuple(n for i, n in enumerate(tensor.shape, 1) if i not in places))


def unsqueeze(build: Builder, call: Call) -> Value:
    tensor, axes = call.tensor(), call.integers("axes", 1) or ()
    if tensor.after:
        return tensor
    rank = len(tensor.shape) + 1 + len(axes)
    places = {axis_of(axis, rank) for axis in axes}
    extents = iter(tensor.shape)
    return build.reshape(call.name, tensor, tuple(1 if i in places else next(extents) for i in range(1, rank)))


def transpose(build: Builder, call: Call) -> Value:
    tensor = call.tensor()
    rank = len(tensor.shape) + 1
    axes = tuple(int(axis) for axis in call.attributes.get("perm", range(rank)[::-1]))
    if sorted(axes) != list(range(rank)) or axes[0] != 0:
        raise refusal(f"it moves the batch axis ({axes}).")
    order = tuple(axis - 1 for axis in axes[1:])
    return tensor if order == tuple(range(len(order))) else build.add(call.name, Permute(order), tensor)


def pad(build: Builder, call: Call) -> Value:
    tensor = call.tensor()
    widths = call.integers("pads", 1) or ()
    rank = len(tensor.shape) + 1
    axes = call.integers("axes", 3) if call.has(3) else tuple(range(rank))
    if axes is None or len(widths) != 2 * len(axes):
        raise refusal("its widths do not fit its input.")
    before, behind = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], behind[axis] = widths[place], widths[place + len(axes)]
    if before[0] or behind[0]:
        raise refusal("it pads the batch.")
    mode = call.attributes.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise refusal(f"its mode {mode!r} is not known.")
    value = (call.number("value", 2) or 0.0) if mode == "constant" else 0.0
    bounded(
        size(tuple(n + abs(b) + abs(a) for n, b, a in zip(tensor.shape, before[1:], behind[1:], strict=True))),
        "A padded tensor",
        LARGEST_TENSOR,
    )

    def move(index: Indices) -> Any:
        for axis in range(index.ndim):
            low, high = max(0, -before[axis + 1]), max(0, -behind[axis + 1])
            index = np.take(index, range(low, index.shape[axis] - high), axis=axis)
        grown = [(max(0, b), max(0, a)) for b, a in zip(before[1:], behind[1:], strict=True)]
        if mode == "constant":
            return np.pad(index, grown, constant_values=-1)
        return np.pad(index, grown, mode=mode)

    padded = build.gather(call.name, tensor, move)
    if value:
        flat = np.asarray(move(np.arange(size(tensor.shape)).reshape(tensor.shape))).ravel()
        sparse = Sparse.gather(flat, size(tensor.shape))._replace(bias=np.where(flat < 0, value, 0.0))
        return build.add(call.name, Matrix(sparse, padded.shape), tensor)
    return padded


def slice_(build: Builder, call: Call) -> Value:
    tensor = call.tensor()
    starts, ends = call.integers("starts", 1), call.integers("ends", 2)
    if starts is None or ends is None:
        raise refusal("its bounds are missing.")
    axes = call.integers("axes", 3) or tuple(range(len(starts)))
    steps = call.integers("steps", 4) or (1,) * len(starts)
    cuts = [slice(None)] * len(tensor.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if axis in (0, -len(tensor.shape) - 1) and start == 0 and end >= 1 << 30 and step == 1:
            continue  # the whole batch
        place = axis_of(axis, len(tensor.shape) + 1)
        extent = tensor.shape[place - 1]
        # In ONNX an end below −extent with a negative step means "down to the first".
        stop = None if step < 0 and end < -extent else end
        cuts[place - 1] = slice(start, stop, step)
    return build.gather(call.name, tensor, lambda index: index[tuple(cuts)])


def split(build: Builder, call: Call) -> tuple[Value, ...]:
    tensor = call.tensor()
    axis = axis_of(int(call.attributes.get("axis", 0)), len(tensor.shape) + 1) - 1
    sizes = call.integers("split", 1)
    if sizes is None:
        each = -(-tensor.shape[axis] // call.outputs)
        sizes = tuple(min(each, max(0, tensor.shape[axis] - i * each)) for i in range(call.outputs))
    if sum(sizes) != tensor.shape[axis] or min(sizes) < 1:
        raise refusal("its sizes do not fit its input.")
    ends = np.cumsum(sizes)
    ranges = [range(end - n, end) for n, end in zip(sizes, ends.tolist(), strict=True)]

    def part(places: range) -> Value:
        return build.gather(call.name, tensor, lambda index: np.take(index, places, axis=axis))

    return tuple(part(places) for places in ranges)


def gather(build: Builder, call: Call) -> Value:
    tensor, indices = call.tensor(), call.constant(1)
    axis = axis_of(int(call.attributes.get("axis", 0)), len(tensor.shape) + 1) - 1
    extent = tensor.shape[axis]
    if indices.dtype.kind not in "iu" or not np.all((indices >= -extent) & (indices < extent)):
        raise refusal("its indices do not fit its input.")
    bounded(size(tensor.shape) // max(1, extent) * indices.size, "A tensor", LARGEST_TENSOR)
    return build.gather(call.name, tensor, lambda index: np.take(index, indices, axis=axis))


def expand(build: Builder, call: Call) -> Value:
    tensor, target = call.tensor(), call.integers("shape", 1) or ()
    rank = len(tensor.shape) + 1
    if len(target) > rank or (len(target) == rank and target[0] != 1):
        raise refusal("it expands the batch.")
    rest = target[1:] if len(target) == rank else target
    if min(rest, default=1) < 1:
        raise refusal("its shape is not positive.")
    try:
        shape = np.broadcast_shapes(tensor.shape, rest)
    except ValueError:
        raise refusal("its shape does not fit its input.") from None
    return build.broadcast(call.name, tensor, shape)


def tile(build: Builder, call: Call) -> Value:
    tensor, repeats = call.tensor(), call.integers("repeats", 1) or ()
    if len(repeats) != len(tensor.shape) + 1 or repeats[0] != 1 or min(repeats) < 1:
        raise refusal("its repeats do not fit its input.")
    bounded(size(tensor.shape) * size(repeats), "A tensor", LARGEST_TENSOR)
    return build.gather(call.name, tensor, lambda index: np.tile(index, repeats[1:]))


def concatenate(build: Builder, call: Call) -> Value:
    tensors = [value for value in call.inputs if isinstance(value, Tensor)]
    rank = len(tensors[0].shape) + 1
    axis = axis_of(int(call.attributes.get("axis", 0)), rank) - 1
    parts: list[tuple[Tensor | None, Any]] = []
    for value in call.inputs:
        if isinstance(value, Tensor):
            parts.append((value, np.arange(size(value.shape), dtype=np.int64).reshape(value.shape)))
        elif value is not None and value.ndim == rank and value.shape[0] == 1:
            parts.append((None, value[0].astype(np.float64)))
        else:
            raise refusal("it joins a constant that does not fit.")
    shapes = {part.shape[:axis] + part.shape[axis + 1 :] for _, part in parts}
    if len({part.ndim for _, part in parts}) != 1 or len(shapes) != 1:
        raise refusal("the shapes that it joins do not fit.")
    bounded(sum(part.size for _, part in parts), "A tensor", LARGEST_TENSOR)
    bias = np.concatenate([np.zeros(part.shape) if t else part for t, part in parts], axis=axis)
    placed: list[Tensor] = []
    for chosen, (tensor, _) in enumerate(parts):
        if tensor is None:
            continue
        pieces = [part if i == chosen else np.full(part.shape, -1) for i, (_, part) in enumerate(parts)]
        index = np.concatenate(pieces, axis=axis).astype(np.int64)
        sparse = Sparse.gather(index.ravel(), size(tensor.shape))
        sparse = sparse if placed else sparse._replace(bias=bias.ravel())
        placed.append(build.add(call.name, Matrix(sparse, index.shape), tensor))
    total = placed[0]
    for tensor in placed[1:]:
        total = build.add(call.name, Sum(), total, tensor)
    return total


def depth_to_space(build: Builder, call: Call) -> Value:
    tensor, block = call.tensor(), int(call.attributes.get("blocksize", 1))
    if len(tensor.shape) != 3 or block < 1 or tensor.shape[0] % (block * block):
        raise refusal("its block does not fit its input.")
    channels, height, width = tensor.shape
    deep = channels // (block * block)

    def move(index: Indices) -> Any:
        if call.attributes.get("mode", "DCR") == "DCR":
            cut = index.reshape(block, block, deep, height, width).transpose(2, 3, 0, 4, 1)
        else:
            cut = index.reshape(deep, block, block, height, width).transpose(0, 3, 1, 4, 2)
        return cut.reshape(deep, height * block, width * block)

    return build.gather(call.name, tensor, move)


def space_to_depth(build: Builder, call: Call) -> Value:
    tensor, block = call.tensor(), int(call.attributes.get("blocksize", 1))
    if len(tensor.shape) != 3 or block < 1 or tensor.shape[1] % block or tensor.shape[2] % block:
        raise refusal("its block does not fit its input.")
    channels, height, width = tensor.shape
    cut = (channels, height // block, block, width // block, block)
    shape = (channels * block * block, height // block, width // block)
    return build.gather(call.name, tensor, lambda i: i.reshape(cut).transpose(2, 4, 0, 1, 3).reshape(shape))


def reduce(build: Builder, call: Call) -> Value:
    """ReduceSum, ReduceMean and ReduceSumSquare."""
    tensor = call.tensor()
    rank = len(tensor.shape) + 1
    axes = call.integers("axes", 1)
    if not axes:
        if call.attributes.get("noop_with_empty_axes"):
            return build.add(call.name, Square(), tensor) if call.operator == "ReduceSumSquare" else tensor
        raise refusal("it sums over every axis, the batch too; name the axes.")
    places = {axis_of(axis, rank) - 1 for axis in axes}
    kept = tuple(1 if i in places else n for i, n in enumerate(tensor.shape))
    outputs = np.broadcast_to(np.arange(size(kept), dtype=np.int64).reshape(kept), tensor.shape).ravel()
    share = size(kept) / max(1, size(tensor.shape)) if call.operator == "ReduceMean" else 1.0
    entries = size(tensor.shape)
    sparse = Sparse(outputs, np.arange(entries, dtype=np.int64), np.full(entries, share), np.zeros(size(kept)), entries)
    if not call.attributes.get("keepdims", 1):
        kept = tuple(n for i, n in enumerate(tensor.shape) if i not in places)
    if call.operator == "ReduceSumSquare":
        tensor = build.add(call.name, Square(), tensor)
    return build.add(call.name, Matrix(sparse, kept), tensor)


def identity(build: Builder, call: Call) -> Value:
    return call.tensor()


def cast(build: Builder, call: Call) -> Value:
    """Nothing happens to real numbers; results may be cast to anything."""
    tensor = call.tensor()
    floats = {1, 10, 11, 16}
    if not tensor.after and int(call.attributes.get("to", 1)) not in floats:
        raise refusal("it casts encrypted numbers to something that is not floating point.")
    return tensor


def dropout(build: Builder, call: Call) -> Value:
    if call.has(2) and scalar(call.constant(2)):
        raise refusal("it is in training mode; export the model for inference.")
    return call.tensor()


def cast_like(build: Builder, call: Call) -> Value:
    """To the type of another value: real numbers stay what they are."""
    tensor = call.tensor()
    other = call.inputs[1]
    if not tensor.after and not isinstance(other, Tensor) and other is not None and other.dtype.kind != "f":
        raise refusal("it casts encrypted numbers to something that is not floating point.")
    return tensor


def shape(build: Builder, call: Call) -> Value:
    """With a batch of one: Reshape takes such a shape for every batch."""
    full = (1, *call.tensor().shape)
    return np.array(full[call.attributes.get("start", 0) : call.attributes.get("end")], dtype=np.int64)
