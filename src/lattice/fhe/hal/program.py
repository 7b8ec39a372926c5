"""A compiled circuit as data, never code: parameters, the types of inputs and weights, instructions, outputs.

The encoding is MessagePack with a fixed field order, so equal programs have equal bytes and an id, the SHA-256 of those
bytes. Weights lie beside the program and are not part of the id: new weights of the same types keep every key valid.
`decode` is bounded and checks the whole program (`hal.validation`) before anybody sees it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.parameters import Parameters, ParameterSet, refuse_insecure
from lattice.fhe.hal.instructions import AnyInstruction, Instruction
from lattice.fhe.hal.rules import CiphertextType, PlaintextType

if TYPE_CHECKING:
    from lattice.fhe.hal.validation import Checked

VERSION = 1
MAX_BYTES = 64 << 20
MAX_INSTRUCTIONS = 1 << 18
MAX_INTERFACE = 1 << 16
"""Inputs, outputs, weights: at most so many of each."""
MAX_COUNT = 1 << 22
"""Plaintexts in one weight."""
MAX_SCALE_TEXT = 8192


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the caller must hand in: a two-component ciphertext of exactly this type."""

    level: int
    scale: str
    encoding: Encoding = Encoding.SLOTS

    @property
    def kind(self) -> CiphertextType:
        """As the rules see it."""
        return CiphertextType(self.level, parse_scale(self.scale), 2, self.encoding)


class Weight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One plaintext, or with `count` several: for a matrix (`extended` by the special primes), for a sum of products,
    or, where the slots repeat with a `period`, stored by their few distinct values."""

    level: int
    scale: str
    count: int = 0
    encoding: Encoding = Encoding.SLOTS
    extended: bool = False
    period: int = 0
    """Zero: none. Otherwise a power of two; 1 stands for real numbers."""

    @property
    def kind(self) -> PlaintextType:
        """As the rules see it."""
        scale = parse_scale(self.scale)
        return PlaintextType(self.level, scale, self.extended, self.encoding, self.count, self.period)


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    version: int
    parameters: dict[str, Any]
    inputs: tuple[Input, ...]
    weights: tuple[Weight, ...]
    instructions: tuple[AnyInstruction, ...]
    outputs: tuple[int, ...]


FORMAT = "lattice fhe program"


@dataclass(frozen=True)
class Program:
    """Made by a compiler or by `decode`; `checked` (by `hal.validation`) before it runs."""

    params: ParameterSet
    inputs: tuple[Input, ...]
    weights: tuple[Weight, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[int, ...]

    def encode(self) -> bytes:
        """Canonical bytes. Programs over test parameters never leave the process."""
        refuse_insecure(self.params)
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        fields = self.params.to_dict()
        instructions: Any = self.instructions
        wire = _Wire(FORMAT, VERSION, fields, self.inputs, self.weights, instructions, self.outputs)
        return msgspec.msgpack.encode(wire)

    @cached_property
    def id(self) -> str:
        """`prg_` and half a SHA-256 of the canonical bytes."""
        return f"prg_{self.digest.hex()[:32]}"

    @cached_property
    def checked(self) -> Checked:
        """Types, keys and liveness, found once: whoever runs a program for every request does not pay for it again."""
        from lattice.fhe.hal.validation import check

        return check(self)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(self._bytes).digest()


def decode(data: bytes) -> Program:
    """Read and check a program; `program_invalid` for anything else, in bounded time and memory."""
    if len(data) > MAX_BYTES:
        raise LatticeError("program_invalid", f"The program has {len(data)} bytes; at most {MAX_BYTES} are read.")
    try:
        wire = msgspec.msgpack.decode(data, type=_Wire)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise LatticeError("program_invalid", "The bytes are not a program of this version.") from None
    if wire.format != FORMAT or wire.version != VERSION:
        raise LatticeError("program_invalid", f"Programs of version {VERSION} are read, this one says {wire.version}.")
    instructions = tuple(wire.instructions)
    program = Program(Parameters.from_dict(wire.parameters), wire.inputs, wire.weights, instructions, wire.outputs)
    if program.encode() != data:
        raise LatticeError("program_invalid", "The bytes are not the canonical encoding of their program.")
    _ = program.checked
    return program


def scale_text(scale: Fraction | int) -> str:
    """An exact scale as a program writes it: lowest terms, hexadecimal."""
    exact = Fraction(scale)
    return f"{exact.numerator:x}/{exact.denominator:x}"


def parse_scale(text: str) -> Fraction:
    """The exact scale; only the form that `scale_text` writes is read."""
    numerator, _, denominator = text.partition("/")
    if len(text) <= MAX_SCALE_TEXT:
        try:
            scale = Fraction(int(numerator, 16), int(denominator, 16))
        except (ValueError, ZeroDivisionError):
            scale = Fraction(0)
        if scale > 0 and scale_text(scale) == text:
            return scale
    raise LatticeError("program_invalid", "A scale is not a positive fraction in lowest terms, in hexadecimal.")
