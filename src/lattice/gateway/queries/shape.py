"""A quick look at a bundle as it streams past: counts and lengths only, so that nothing of it is kept in memory."""

from __future__ import annotations

from lattice.core.errors import LatticeError

MAX_OBJECTS = 1 << 17
_COUNT, _LENGTH = 4, 8


class BundleShape:
    """Follows a bundle of ciphertexts: a count, then each object behind its length (`fhe.serialise.bundle`)."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._objects: int | None = None
        self._skip = 0

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; `blob_invalid` as soon as they cannot be a bundle's."""
        view = memoryview(piece)
        while view:
            if self._skip:
                step = min(self._skip, len(view))
                self._skip, view = self._skip - step, view[step:]
                continue
            if self._objects == 0:
                raise LatticeError("blob_invalid", "The bundle has bytes after its end.")
            wanted = (_COUNT if self._objects is None else _LENGTH) - len(self._head)
            self._head += view[:wanted]
            view = view[wanted:]
            self._take_head()

    def finish(self) -> None:
        """The body has ended; `blob_invalid` where the bundle has not."""
        if self._objects != 0 or self._skip or self._head:
            raise LatticeError("blob_invalid", "The bundle is cut short.")

    def _take_head(self) -> None:
        if self._objects is None and len(self._head) == _COUNT:
            self._objects = int.from_bytes(self._head, "little")
            if not 0 < self._objects <= MAX_OBJECTS:
                raise LatticeError("blob_invalid", f"The bundle claims {self._objects} objects.")
        elif self._objects is not None and len(self._head) == _LENGTH:
            self._skip = int.from_bytes(self._head, "little")
            self._objects -= 1
        else:
            return
        self._head.clear()
