"""The section `client`: parameters, the list of keys, and what the client does in the clear. No weights, no program.

MessagePack with a fixed field order. Where which entry lies in which slot is stored as differences, deflated: layouts
are regular, and a thousand of them take kilobytes. Reading allocates at most what `MAX_ENTRIES` and `MAX_SAMPLE` say,
whatever the bytes claim, and checks that every entry exists: a client never looks outside what it encrypts or decrypts.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import isfinite, prod
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.artefact.container import check_text, invalid
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import Parameters, ParameterSet, refuse_insecure
from lattice.fhe.compiler.client_part import (
    After,
    AppendSquaredLength,
    ArgMax,
    Before,
    ClientPart,
    Largest,
    Neighbours,
    Packed,
    Threshold,
    ToUnit,
    Vote,
)
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.hal.program import MAX_INTERFACE, parse_scale
from lattice.fhe.serialise.keys import MAX_KEYS, key_bytes

if TYPE_CHECKING:
    AnyBefore = Before
    AnyAfter = After
else:  # the steps that `client_part` has, which is what the decoder must choose between
    AnyBefore = reduce(or_, Before.__subclasses__())
    AnyAfter = reduce(or_, After.__subclasses__())

VERSION = 1
MAX_ENTRIES = 1 << 25
"""Of all layouts of a part together: 128 MiB."""
MAX_SAMPLE = 1 << 23
"""Features of a sample: their ranges take 128 MiB."""
MAX_BATCH = MAX_RESULTS = 1 << 20
MAX_AXES = MAX_STEPS = 8
MAX_LABEL = 200
MAX_EXPONENT = 1100
LOWEST_ENTRY = -2
"""`circuit.JUNK`; −1 is `ZERO`."""


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
    data = msgspec.msgpack.encode(wire)
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
    _check_keys(keys, params)
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


def _check_keys(keys: tuple[KeySpec, ...], params: ParameterSet) -> None:
    if len(keys) > MAX_KEYS or any(a.element >= b.element for a, b in pairwise(keys)):
        raise invalid(f"Keys must be in ascending order, each once, {MAX_KEYS} at most.")
    try:
        for spec in keys:
            spec.check(params)
    except LatticeError as error:
        raise invalid(f"A key cannot be made: {error.message}") from None


def check_client(part: ClientPart, params: ParameterSet) -> None:
    """Sizes, ranges and indices fit each other and the parameters."""
    _check_inputs(part, params)
    if not part.outputs or not 1 <= part.results <= MAX_RESULTS or part.batch * part.results > MAX_ENTRIES:
        raise invalid("The model has no output, or too many results.")
    read = np.zeros(part.batch * part.results, dtype=bool)
    for packed in part.outputs:
        _check_packed(packed, params)
        found = packed.entries[packed.entries >= 0]
        if len(found) and found.max() >= len(read):
            raise invalid("An output slot holds a result that no sample has.")
        read[found] = True
    if not read.all():
        raise invalid("A result lies in no output slot.")
    _check_after(part)


def check_database(part: ClientPart, params: ParameterSet) -> None:
    """The same for whoever only encrypts."""
    _check_inputs(part, params)
    if part.outputs or part.after or part.results:
        raise invalid("The owner of a database reads no results.")


def _check_inputs(part: ClientPart, params: ParameterSet) -> None:
    features = _check_samples(part)
    if not part.inputs:
        raise invalid("The model has no input.")
    for packed in part.inputs:
        _check_packed(packed, params)
        if packed.entries.max() >= part.batch * features:
            raise invalid("An input slot asks for a feature that no sample has.")


def _check_samples(part: ClientPart) -> int:
    """Features of one sample as they are packed."""
    if len(part.feature_shape) > MAX_AXES or any(not 1 <= extent <= MAX_SAMPLE for extent in part.feature_shape):
        raise invalid(f"A sample has at most {MAX_AXES} axes, none of them empty.")
    size = prod(part.feature_shape)
    if size > MAX_SAMPLE or not 1 <= part.batch <= MAX_BATCH:
        raise invalid("A sample or the batch is too large, or zero.")
    if len(part.before) > MAX_STEPS or len(part.after) > MAX_STEPS:
        raise invalid(f"The client takes at most {MAX_STEPS} steps before and after.")
    features = _packed_features(part, size)
    if part.batch * features > 1 << 31:
        raise invalid("A batch has too many features.")
    if part.low.shape != part.high.shape or part.low.shape not in ((size,), (features,)):
        raise invalid(f"There are {part.low.size} and {part.high.size} ranges for {features} features.")
    if not (part.low <= part.high).all():  # not for NaN either
        raise invalid("A calibrated range is empty or not a number.")
    return features


def _packed_features(part: ClientPart, features: int) -> int:
    """How many features a sample has after the steps before packing."""
    for step in part.before:
        if isinstance(step, AppendSquaredLength):
            features += 1
        if isinstance(step, ToUnit):
            if len(step.middle) != features or len(step.exponents) != features:
                raise invalid(f"A step before packing has {len(step.middle)} features and a sample {features}.")
            if not np.isfinite(step.middle).all() or any(abs(bits) > MAX_EXPONENT for bits in step.exponents):
                raise invalid("A step before packing is not of finite numbers.")
    return features


def _check_packed(packed: Packed, params: ParameterSet) -> None:
    whole = params.slots if packed.encoding is Encoding.SLOTS else params.n
    size = len(packed.entries)
    if size > whole or whole % size:
        raise invalid(f"A layout has {size} entries; a ciphertext has room for {whole}.")
    if not 0 <= packed.level <= params.max_level:
        raise invalid(f"An input or output is at level {packed.level}, which does not exist.")
    try:
        parse_scale(packed.scale)
    except LatticeError as error:
        raise invalid(error.message) from None
    if packed.entries.min() < LOWEST_ENTRY:
        raise invalid(f"An entry of a layout is below {LOWEST_ENTRY}.")


def _check_after(part: ClientPart) -> None:
    for step in part.after:
        labels = getattr(step, "labels", ())
        for label in labels:
            check_text(label, MAX_LABEL)
        fits = _CHOICES.get(type(step))
        if fits and (step is not part.after[-1] or not fits(step, part.results)):
            raise invalid(f"The last step {step.__struct_config__.tag} does not fit {part.results} results.")


_CHOICES: dict[type[After], Callable[[Any, int], bool]] = {
    ArgMax: lambda step, results: len(step.labels) in (0, results),
    Threshold: lambda step, results: len(step.labels) in (0, 2) and isfinite(step.value),
    Largest: lambda step, results: 1 <= step.count <= results,
    Vote: lambda step, results: len(step.labels) > 1 and len(step.labels) * (len(step.labels) - 1) == 2 * results,
    Neighbours: lambda step, results: (
        1 <= step.count <= results == len(step.members)
        and all(0 <= member < len(step.labels) for member in step.members)
    ),
}
"""Whether a step and its tables fit so many results. They end in labels or in fewer values, so they come last only."""
