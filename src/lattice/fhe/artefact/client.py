"""The section `client`: parameters, the list of keys, and what the client does in the clear. No weights, no program.

MessagePack with a fixed field order. Where which entry lies in which slot is stored as differences, deflated: layouts
are regular, a thousand take kilobytes. Reading allocates at most what `checks.MAX_ENTRIES` and `MAX_SAMPLE` say,
whatever the bytes claim, and checks that every entry exists: a client never looks outside what it encrypts or decrypts.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.artefact.checks import MAX_ENTRIES, MAX_LABEL, MAX_SAMPLE, check_client, check_database, check_keys
from lattice.fhe.artefact.container import check_text, invalid
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import Parameters, ParameterSet, refuse_insecure
from lattice.fhe.compiler.client_part import After, Before, ClientPart, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.hal.program import MAX_INTERFACE
from lattice.fhe.serialise.keys import key_bytes

if TYPE_CHECKING:
    AnyBefore = Before
    AnyAfter = After
else:  # the steps that `client_part` has, which is what the decoder must choose between
    AnyBefore = reduce(or_, Before.__subclasses__())
    AnyAfter = reduce(or_, After.__subclasses__())

VERSION = 1


class _Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entries: int
    level: int
    scale: str
    encoding: Encoding


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    feature_shape: tuple[int, ...]
    batch: int
    before: tuple[AnyBefore, ...]
    inputs: tuple[_Packed, ...]
    outputs: tuple[_Packed, ...]
    after: tuple[AnyAfter, ...]
    results: int
    ranges: int
    """How many."""
    bounds: bytes
    """Deflated: the low ends, then the high ends."""
    layouts: bytes
    """Deflated, inputs then outputs."""


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    program: str
    parameters: dict[str, Any]
    keys: tuple[tuple[int, int], ...]
    client: _Part
    database: _Part | None


class Decoded(NamedTuple):
    """What the section holds."""

    client: ClientPart
    database: ClientPart | None
    params: Parameters
    keys: tuple[KeySpec, ...]
    program_id: str


@dataclass(frozen=True, eq=False)
class ClientView:
    """What a client needs to make keys, encrypt and decrypt, and who says so."""

    name: str
    artefact_id: str
    publisher: bytes | None
    """Raw Ed25519 key; None for an unsigned file."""
    program_id: str
    params: ParameterSet
    keys: tuple[KeySpec, ...]
    """Exactly the evaluation keys to make."""
    client: ClientPart
    database: ClientPart | None = None
    """How the owner of encrypted rows packs them, where there are such."""

    @property
    def keys_id(self) -> str:
        """Equal for two models whose keys may be shared, such as two versions that differ in weights alone."""
        wanted = " ".join([self.params.id, *(spec.id for spec in self.keys)])
        return f"ksp_{hashlib.sha256(wanted.encode()).hexdigest()[:32]}"

    @cached_property
    def interface(self) -> bytes:
        """A hash of keys, encoding and decoding: equal for versions between which a client sees no difference."""
        parts = (self.client, self.database)
        wire = [None if part is None else msgspec.msgpack.encode(_part_to_wire(part)) for part in parts]
        return hashlib.sha256(msgspec.msgpack.encode([self.keys_id, *wire])).digest()

    @property
    def key_bytes(self) -> int:
        """Bytes of all evaluation keys on the wire, without the few of their frame."""
        return sum(key_bytes(spec, self.params) for spec in self.keys)


def encode_client(compiled: Compiled) -> bytes:
    """To bytes; refuses what `decode_client` would refuse."""
    refuse_insecure(compiled.params)
    wire = _Wire(
        VERSION,
        compiled.program.id,
        compiled.params.to_dict(),
        tuple((spec.element, spec.level) for spec in compiled.keys),
        _part_to_wire(compiled.client),
        None if compiled.database is None else _part_to_wire(compiled.database),
    )
    # Typed once more, so that a whole number in a field for fractions is written as it will be read.
    data = msgspec.msgpack.encode(msgspec.convert(msgspec.to_builtins(wire, builtin_types=(bytes,)), _Wire))
    decode_client(data)
    return data


def decode_client(data: bytes | memoryview) -> Decoded:
    """From bytes; parameters are checked for 128 bits."""
    try:
        wire = msgspec.msgpack.decode(data, type=_Wire)
        canonical = msgspec.msgpack.encode(wire)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        raise invalid("The client's part is malformed.") from None
    if wire.version != VERSION:
        raise invalid(f"The client's part has version {wire.version}; this program reads version {VERSION}.")
    if canonical != data:
        raise invalid("The client's part is not in its canonical form.")
    try:
        params = Parameters.from_dict(wire.parameters)
    except LatticeError as error:
        raise error if error.code == "parameters_insecure" else invalid(error.message) from None
    keys = tuple(KeySpec(element, level) for element, level in wire.keys)
    check_keys(keys, params)
    check_text(wire.program, MAX_LABEL)
    client = _part_from_wire(wire.client)
    check_client(client, params)
    database = None if wire.database is None else _part_from_wire(wire.database)
    if database is not None:
        check_database(database, params)
    return Decoded(client, database, params, keys, wire.program)


def _part_to_wire(part: ClientPart) -> _Part:
    packed = (*part.inputs, *part.outputs)
    kinds = [_Packed(len(p.entries), p.level, p.scale, p.encoding) for p in packed]
    _check_sizes(kinds)
    if part.low.ndim != 1 or part.low.shape != part.high.shape:
        raise invalid("The calibrated ranges are not two lists of one length.")
    bounds = np.concatenate([part.low, part.high]).astype("<f8")
    return _Part(
        part.feature_shape,
        part.batch,
        part.before,
        tuple(kinds[: len(part.inputs)]),
        tuple(kinds[len(part.inputs) :]),
        part.after,
        part.results,
        len(part.low),
        zlib.compress(bounds.tobytes(), 9),
        _deflate([p.entries for p in packed]),
    )


def _part_from_wire(wire: _Part) -> ClientPart:
    kinds = (*wire.inputs, *wire.outputs)
    sizes = _check_sizes(kinds)
    if not 0 <= wire.ranges <= MAX_SAMPLE:
        raise invalid(f"There may be {MAX_SAMPLE} ranges.")
    steps = np.frombuffer(_inflate(wire.layouts, 4 * sum(sizes)), dtype="<u4")
    layouts = np.split(steps, np.cumsum(sizes)[:-1]) if sizes else []
    packed = [
        Packed(np.cumsum(layout, dtype=np.uint32).view(np.int32), k.level, k.scale, k.encoding)
        for layout, k in zip(layouts, kinds, strict=True)
    ]
    bounds = np.frombuffer(_inflate(wire.bounds, 16 * wire.ranges), dtype="<f8")
    return ClientPart(
        wire.feature_shape,
        wire.batch,
        wire.before,
        tuple(packed[: len(wire.inputs)]),
        tuple(packed[len(wire.inputs) :]),
        wire.after,
        wire.results,
        bounds[: wire.ranges],
        bounds[wire.ranges :],
    )


def _check_sizes(kinds: Iterable[_Packed]) -> list[int]:
    """How many entries each layout has, before anything of that size exists."""
    sizes = [kind.entries for kind in kinds]
    if len(sizes) > 2 * MAX_INTERFACE or any(size < 1 for size in sizes) or sum(sizes) > MAX_ENTRIES:
        raise invalid(f"The layouts must have at least one and together at most {MAX_ENTRIES} entries.")
    return sizes


def _deflate(layouts: list[NDArray[np.int32]]) -> bytes:
    compressor = zlib.compressobj(9)
    steps = (np.diff(layout.astype("<u4"), prepend=np.uint32(0)).astype("<u4") for layout in layouts)
    return b"".join([*(compressor.compress(step.tobytes()) for step in steps), compressor.flush()])


def _inflate(data: bytes, wanted: int) -> bytes:
    """Exactly so many bytes, whatever the data would inflate to."""
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(data, wanted + 1)
    except zlib.error:
        raise invalid("The layouts or ranges are damaged.") from None
    if len(raw) != wanted or not inflater.eof or inflater.unused_data:
        raise invalid("There are more or fewer layouts or ranges than are declared.")
    return raw
