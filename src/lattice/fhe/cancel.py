"""Stopping an evaluation from another thread: it looks between two instructions, so no bit ever depends on it."""

from __future__ import annotations

from typing import Protocol

from lattice.core.errors import LatticeError
from lattice.fhe.native_module import HAS_NATIVE, native


class _Flag(Protocol):
    def set(self) -> None: ...

    def is_set(self) -> bool: ...


class _PlainFlag:
    """Where there is no native module, which reads its own flag without the interpreter lock."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


class Cancel:
    """Give it to an evaluation, and call `cancel` from anywhere: the evaluation raises `work_cancelled`."""

    __slots__ = ("flag",)

    def __init__(self) -> None:
        self.flag: _Flag = native.CancelFlag() if HAS_NATIVE else _PlainFlag()

    def cancel(self) -> None:
        """Stop before the next instruction. There is no way back."""
        self.flag.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody did."""
        return self.flag.is_set()

    def check(self, executed: int = 0) -> None:
        """Raise `work_cancelled` if so; `executed` is how many instructions were run."""
        if self.flag.is_set():
            raise cancelled(executed)


def cancelled(executed: int) -> LatticeError:
    """How an evaluation ends that was cancelled after so many instructions."""
    return LatticeError("work_cancelled", "The evaluation was cancelled.", details={"executed": executed})
