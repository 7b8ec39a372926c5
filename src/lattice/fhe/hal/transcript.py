"""Transcripts: what a backend was asked and what it answered, by hash, to be replayed on new hardware.

`Recorder` wraps a backend, notes every primitive call, and keeps the tensors that came from outside (inputs, keys,
weights) once each, by SHA-256. `replay` performs the same calls on another backend, feeding each call with what the
earlier ones *there* returned, and reports the first answer whose bits differ. A transcript is public data only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.digits import KeySwitchContext
from lattice.fhe.hal.backend import Backend, Residues

VERSION = 1
MAX_CALLS = 1 << 20
MAX_TENSOR_BYTES = 1 << 33
MAX_RANK = 8
PRIMITIVES = (
    "ntt",
    "intt",
    "add",
    "sub",
    "neg",
    "mul",
    "mul_add",
    "mul_scalar",
    "automorphism_ntt",
    "convert",
    "mod_up",
    "mod_down",
    "rescale",
    "decompose",
    "gadget_product",
)


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="context"):
    """A `KeySwitchContext` as data."""

    n: int
    q_moduli: tuple[int, ...]
    special: tuple[int, ...]
    digits: tuple[tuple[int, int], ...]

    def restore(self) -> KeySwitchContext:
        """The context."""
        return KeySwitchContext(self.n, self.q_moduli, self.special, self.digits)


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="tensor"):
    """A tensor by the hash of its shape and little-endian words."""

    sha256: bytes
    shape: tuple[int, ...]


Argument = Tensor | Context | tuple[int, ...] | int


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One primitive call."""

    name: str
    arguments: tuple[Argument, ...]
    result: Tensor


class Transcript(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The calls in order, and the tensors that none of them returned."""

    version: int
    recorded_on: str
    calls: tuple[Call, ...]
    tensors: dict[str, bytes]

    def encode(self) -> bytes:
        """Canonical MessagePack."""
        return msgspec.msgpack.encode(self, order="deterministic")


class Difference(msgspec.Struct, frozen=True):
    """The first call whose answer had other bits."""

    index: int
    name: str
    recorded: Tensor
    seen: Tensor


def decode(data: bytes, max_bytes: int = MAX_TENSOR_BYTES) -> Transcript:
    """Read a transcript; `blob_invalid` for anything else."""
    if len(data) > max_bytes:
        raise LatticeError("blob_invalid", f"The transcript has {len(data)} bytes; at most {max_bytes} are read.")
    try:
        out = msgspec.msgpack.decode(data, type=Transcript)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise LatticeError("blob_invalid", "The bytes are not a transcript of this version.") from None
    if out.version != VERSION or len(out.calls) > MAX_CALLS or any(c.name not in PRIMITIVES for c in out.calls):
        raise LatticeError("blob_invalid", "The transcript has another version, too many calls or an unknown one.")
    return out


def fingerprint(x: Residues) -> Tensor:
    """The hash of a tensor's shape and bits."""
    digest = hashlib.sha256(repr(x.shape).encode())
    digest.update(np.ascontiguousarray(x, dtype="<u8").data)
    return Tensor(digest.digest(), x.shape)


class Recorder:
    """A backend that computes with another one and notes every primitive call. Composites run by their defaults."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._calls: list[Call] = []
        self._made: set[bytes] = set()
        self._outside: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        """`recorder of reference`."""
        return f"recorder of {self._backend.name}"

    def __getattr__(self, name: str) -> Callable[..., Residues]:
        if name not in PRIMITIVES:
            raise AttributeError(name)
        return lambda *arguments: self._call(name, arguments)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Residues:
        noted = tuple(self._note(argument) for argument in arguments)
        result: Residues = getattr(self._backend, name)(*arguments)
        tensor = fingerprint(result)
        self._made.add(tensor.sha256)
        self._calls.append(Call(name, noted, tensor))
        return result

    def _note(self, argument: Any) -> Argument:
        if isinstance(argument, np.ndarray):
            tensor = fingerprint(argument)
            if tensor.sha256 not in self._made:
                self._outside.setdefault(tensor.sha256.hex(), np.ascontiguousarray(argument, dtype="<u8").tobytes())
            return tensor
        if isinstance(argument, KeySwitchContext):
            return Context(argument.n, argument.q_moduli, argument.special, argument.digits)
        return argument if isinstance(argument, int) else tuple(int(entry) for entry in argument)

    def transcript(self) -> Transcript:
        """What was recorded so far. A view or a stack of answers counts as coming from outside."""
        return Transcript(VERSION, self._backend.name, tuple(self._calls), dict(self._outside))


def replay(transcript: Transcript, backend: Backend) -> Difference | None:
    """Perform the calls on this backend; None when every answer has the recorded bits."""
    known = _restored(transcript)
    for index, call in enumerate(transcript.calls):
        result = getattr(backend, call.name)(*(_argument(a, known) for a in call.arguments))
        seen = fingerprint(result)
        if seen != call.result:
            return Difference(index, call.name, call.result, seen)
        known[seen.sha256] = result
    return None


def _restored(transcript: Transcript) -> dict[bytes, Residues]:
    shapes = {a.sha256: a.shape for call in transcript.calls for a in call.arguments if isinstance(a, Tensor)}
    known = {}
    for name, data in transcript.tensors.items():
        key = _unhex(name)
        shape = shapes.get(key, ())
        words = np.frombuffer(data, dtype="<u8") if len(data) % 8 == 0 else np.empty(0, dtype="<u8")
        if len(shape) > MAX_RANK or words.size != int(np.prod(shape, dtype=object)):
            raise LatticeError("blob_invalid", "A tensor of the transcript does not have the shape of its use.")
        tensor = words.astype(np.uint64).reshape(shape)
        if fingerprint(tensor).sha256 != key:
            raise LatticeError("blob_invalid", "A tensor of the transcript does not have its hash.")
        known[key] = tensor
    return known


def _unhex(name: str) -> bytes:
    try:
        return bytes.fromhex(name)
    except ValueError:
        raise LatticeError("blob_invalid", "A tensor of the transcript has a malformed hash.") from None


def _argument(argument: Argument, known: dict[bytes, Residues]) -> Any:
    if isinstance(argument, Tensor):
        if argument.sha256 not in known:
            raise LatticeError("blob_invalid", "A call uses a tensor that the transcript does not have.")
        return known[argument.sha256]
    return argument.restore() if isinstance(argument, Context) else argument
