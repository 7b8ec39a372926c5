"""Several objects of the wire as one body: a count, then each object behind its length.

    0  4  count, little-endian, at most 131,072
    …  8  bytes of the next object, little-endian
    …     the object, as `ciphertexts` or `keys` writes it

A bundle is written and read piece by piece, so that nobody needs the whole of it in memory. What the objects are is
their readers' business: this module bounds and counts, and it never allocates on a stranger's word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lattice.fhe.serialise.frame import invalid

MAX_OBJECTS = 1 << 17
"""Twice the interface of the largest program."""
MAX_OBJECT = 64 << 30
_COUNT, _LENGTH = 4, 8


def bundle_bytes(objects: Sequence[bytes | memoryview]) -> int:
    """The size of the bundle."""
    return _COUNT + sum(_LENGTH + len(each) for each in objects)


def write_pieces(objects: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The bundle, object after object, without copying one."""
    if len(objects) > MAX_OBJECTS:
        raise invalid(f"A bundle holds {MAX_OBJECTS} objects, not {len(objects)}.")
    yield len(objects).to_bytes(_COUNT, "little")
    for each in objects:
        yield len(each).to_bytes(_LENGTH, "little")
        yield each


def write_bundle(objects: Sequence[bytes | memoryview]) -> bytes:
    """The whole bundle."""
    return b"".join(write_pieces(objects))


def read_bundle(data: bytes | memoryview, *, at_most: int = MAX_OBJECTS) -> list[memoryview]:
    """The objects of a whole bundle, not copied. `blob_invalid` for anything but a bundle of at most so many."""
    view = memoryview(data).cast("B")
    if len(view) < _COUNT:
        raise invalid("A bundle is cut short.")
    count, at = int.from_bytes(view[:_COUNT], "little"), _COUNT
    if count > at_most or count * _LENGTH > len(view) - _COUNT:
        raise invalid(f"A bundle claims {count} objects.")
    found = []
    for _ in range(count):
        size = int.from_bytes(view[at : at + _LENGTH], "little")
        at += _LENGTH
        if at > len(view) or size > len(view) - at:
            raise invalid("A bundle is cut short.")
        found.append(view[at : at + size])
        at += size
    if at != len(view):
        raise invalid("A bundle has bytes after its end.")
    return found


class BundleReader:
    """Reads a bundle as it arrives. It holds one object at a time, and never more than `max_object` bytes."""

    def __init__(self, *, max_object: int = MAX_OBJECT, max_objects: int = MAX_OBJECTS) -> None:
        self._max_object, self._max_objects = max_object, max_objects
        self._pending = bytearray()
        self._left: int | None = None
        self._size: int | None = None

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Take bytes; every object that they complete. Exhaust the iterator before feeding again."""
        self._pending += chunk
        while (found := self._next()) is not None:
            yield found

    def finish(self) -> None:
        """The body has ended: refuse a bundle that has not."""
        if self._left != 0 or self._size is not None or self._pending:
            raise invalid("A bundle is cut short.")

    def _next(self) -> bytes | None:
        if self._left is None and (count := self._number(_COUNT)) is not None:
            if count > self._max_objects:
                raise invalid(f"A bundle claims {count} objects.")
            self._left = count
        if self._left is None:
            return None
        if self._left == 0:
            if self._pending:
                raise invalid("A bundle has bytes after its end.")
            return None
        if self._size is None and (size := self._number(_LENGTH)) is not None:
            if size > self._max_object:
                raise invalid(f"A bundle claims an object of {size} bytes.")
            self._size = size
        if self._size is None or len(self._pending) < self._size:
            return None
        found = self._take(self._size)
        self._size, self._left = None, self._left - 1
        return found

    def _number(self, size: int) -> int | None:
        return int.from_bytes(self._take(size), "little") if len(self._pending) >= size else None

    def _take(self, size: int) -> bytes:
        found = bytes(memoryview(self._pending)[:size])
        del self._pending[:size]
        return found


def read_stream(
    chunks: Iterable[bytes], *, max_object: int = MAX_OBJECT, max_objects: int = MAX_OBJECTS
) -> Iterator[bytes]:
    """The objects of a bundle that comes in chunks of any size."""
    reader = BundleReader(max_object=max_object, max_objects=max_objects)
    for chunk in chunks:
        yield from reader.feed(chunk)
    reader.finish()
