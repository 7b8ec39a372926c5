"""Weights as safetensors: eight bytes of length, a JSON header, the numbers; what the library of that name reads too.

For given shapes and types exactly one header exists (tensors `w00000`, `w00001`, … by descending width, then number),
and a file with any other is refused: so a name cannot occur twice, ranges cannot overlap and nothing can hide between
them. (The library itself takes the last of two equal names, wants a copy of the whole section, and copies each tensor
once more; it is the oracle of the tests.) Weights are 32-bit floats where that loses nothing, else 64-bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lattice.fhe.artefact.container import invalid

MAX_HEADER = 8 << 20
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
Shape = tuple[int, ...]
Floats = NDArray[np.floating[Any]]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor in the header."""

    dtype: str
    shape: Shape
    data_offsets: tuple[int, int]


class Place(NamedTuple):
    """Where the tensor of that number lies, behind the header."""

    number: int
    dtype: str
    start: int


def narrowed(tensor: Floats, name: str) -> Floats:
    """The tensor as 32-bit floats if that is exact, else as 64-bit ones; little-endian and contiguous."""
    with np.errstate(over="ignore", under="ignore"):
        short = np.asarray(tensor, dtype="<f4", order="C")
    exact = np.asarray(tensor, dtype="<f8", order="C")
    if not np.isfinite(exact).all():
        raise invalid(f"{name} is not finite everywhere.")
    return short if np.array_equal(short, exact) else exact


def pieces(tensors: Sequence[Floats]) -> Iterator[bytes | memoryview]:
    """The file, piece by piece, without a copy of the tensors."""
    dtypes = ["F32" if tensor.dtype.itemsize == 4 else "F64" for tensor in tensors]
    header, places = _layout(dtypes, [tensor.shape for tensor in tensors])
    yield len(header).to_bytes(8, "little") + header
    for place in places:
        yield tensors[place.number].reshape(-1).view(np.uint8).data


def read(data: memoryview, shapes: Sequence[Shape]) -> tuple[Floats, ...]:
    """Exactly the tensors of these shapes, as read-only views of `data`; finite everywhere."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER, len(data) - 8):
        raise invalid("The weights' header is longer than what is there, or than anything that is read.")
    raw = bytes(data[8 : 8 + size])
    dtypes = _dtypes(raw, len(shapes))
    header, places = _layout(dtypes, shapes)
    if header != raw:
        raise invalid("The weights do not have the names, shapes and places that the program's weights call for.")
    body = data[8 + size :].toreadonly()
    if len(body) != sum(_bytes(dtype, shape) for dtype, shape in zip(dtypes, shapes, strict=True)):
        raise invalid("The weights have more or fewer bytes than their header says.")
    tensors: list[Floats] = [np.empty(0)] * len(shapes)
    for index, dtype, start in places:
        shape = shapes[index]
        piece = body[start : start + _bytes(dtype, shape)]
        tensors[index] = np.frombuffer(piece, DTYPES[dtype]).reshape(shape)
        if not np.isfinite(tensors[index]).all():
            raise invalid(f"Weight {index} is not finite everywhere.")
    return tuple(tensors)


def _dtypes(raw: bytes, count: int) -> list[str]:
    try:
        entries = msgspec.json.decode(raw, type=dict[str, Entry])
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise invalid("The weights' header is malformed.") from None
    if len(entries) != count:
        raise invalid(f"There are {len(entries)} weights; the program has {count}.")
    found = [entries[name].dtype if (name := _name(index)) in entries else "" for index in range(count)]
    if not set(found) <= set(DTYPES):
        raise invalid(f"Weights are {' or '.join(DTYPES)}, and each has its number for a name.")
    return found


def _layout(dtypes: Sequence[str], shapes: Sequence[Shape]) -> tuple[bytes, list[Place]]:
    """The only header for these types and shapes, and the places in their order."""
    order = sorted(range(len(shapes)), key=lambda index: (-DTYPES[dtypes[index]].itemsize, index))
    entries, places, at = {}, [], 0
    for index in order:
        end = at + _bytes(dtypes[index], shapes[index])
        entries[_name(index)] = Entry(dtypes[index], shapes[index], (at, end))
        places.append(Place(index, dtypes[index], at))
        at = end
    header = msgspec.json.encode(entries)
    return header + b" " * (-len(header) % 8), places


def _name(index: int) -> str:
    return f"w{index:05}"


def _bytes(dtype: str, shape: Shape) -> int:
    return DTYPES[dtype].itemsize * prod(shape)
