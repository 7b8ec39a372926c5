"""Writing and reading the file. Nothing in it is a path, an import or code; a reader decodes and compares."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from lattice.core.errors import LatticeError
from lattice.fhe.artefact import signing, tensors
from lattice.fhe.artefact.client import ClientView, decode_client, encode_client
from lattice.fhe.artefact.container import (
    LIMITS,
    MAX_NAME,
    Container,
    Header,
    Section,
    check_section,
    check_text,
    invalid,
    read_container,
    read_section,
    seal_bytes,
    seal_header,
)
from lattice.fhe.artefact.signing import Signer
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler.client_part import ClientPart, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.report_data import Report, read_report
from lattice.fhe.compiler.report_facts import completed
from lattice.fhe.hal import program as programs
from lattice.fhe.hal.instructions import LoadWeight, SumPeriodic
from lattice.fhe.hal.program import Program, Weight
from lattice.fhe.hal.rules import CiphertextType

Source = str | os.PathLike[str] | bytes
"""A path, or the file's bytes."""
Trust = Collection[bytes] | None
"""Raw public keys of publishers of whom one must have signed; None: whoever signed, and unsigned files too."""


@dataclass(frozen=True)
class Inspection:
    """What a file says about itself, its hashes and its signature checked, nothing decoded."""

    name: str
    artefact_id: str
    """`art_` and half of the content hash."""
    content_hash: str
    program_id: str
    weights_hash: str
    publisher: bytes | None
    sizes: dict[str, int]
    """Of the sections, by name."""
    whole: bool
    """False where only the client's part is there."""


def save(compiled: Compiled, path: str | os.PathLike[str], signer: Signer | None = None) -> Inspection:
    """Write the model, all or nothing, readable by its owner alone. Equal models give equal bytes."""
    report, parts = _parts(compiled)
    sections = []
    for name, pieces in parts.items():
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        sections.append(Section(name, sum(map(len, pieces)), digest.hexdigest()))
    header = Header(check_text(report.model, MAX_NAME), tuple(sections))
    for section in sections:
        if section.size > LIMITS[section.name]:
            raise invalid(f"The section {section.name} has {section.size} bytes; at most {LIMITS[section.name]}.")
    start, content_hash = seal_header(header)
    publisher, signature = signing.sign(content_hash, signer)
    seal = seal_bytes(content_hash, publisher, signature)
    _write(Path(path), [start, seal, *(piece for pieces in parts.values() for piece in pieces)])
    return _inspection(Container(header, content_hash, publisher, signature, {}, True), publisher if signer else None)


def load(source: Source, *, trust: Trust = None) -> Compiled:
    """Read and check the whole model. Memory: the file's size, once, beside what `client` and `hal.program` state."""
    with _opened(source) as (stream, container):
        signing.verify(container.content_hash, container.publisher, container.signature, trust)
        client = decode_client(read_section(stream, container, "client"))
        report = _decode_report(read_section(stream, container, "report"), container.header.name)
        program = _decode_program(read_section(stream, container, "program"))
        found = client.program_id, client.params.id, client.keys
        if found != (program.id, program.params.id, program.checked.keys):
            raise invalid("The client's part is not of this program: its id, parameters or keys differ.")
        check_interface(client.client, client.database, program)
        weights = tensors.read(read_section(stream, container, "weights"), weight_shapes(program))
    return Compiled(program, weights, client.client, report.to_dict(), client.database)


def inspect(source: Source, *, trust: Trust = None) -> Inspection:
    """Check every hash and the signature in little memory; decode nothing."""
    with _opened(source) as (stream, container):
        publisher = signing.verify(container.content_hash, container.publisher, container.signature, trust)
        for name in LIMITS if container.has_all else ("client",):
            check_section(stream, container, name)
    return _inspection(container, publisher)


def client_view(source: Source, *, trust: Trust = None) -> ClientView:
    """What a client needs, from the whole file or from `client_bytes`; the rest is not even read."""
    with _opened(source) as (stream, container):
        publisher = signing.verify(container.content_hash, container.publisher, container.signature, trust)
        client = decode_client(read_section(stream, container, "client"))
    found = _inspection(container, publisher)
    if client.program_id != found.program_id:
        raise invalid("The client's part is not of this program.")
    return ClientView(
        found.name,
        found.artefact_id,
        publisher,
        found.program_id,
        client.params,
        client.keys,
        client.client,
        client.database,
    )


def client_bytes(source: Source) -> bytes:
    """The beginning of the file, which is what clients are sent: hashed and signed like the whole."""
    with _opened(source) as (stream, container):
        check_section(stream, container, "client")
        end = container.starts["client"] + container.section("client").size
        stream.seek(0)
        return stream.read(end)


def read_file_report(source: Source, *, trust: Trust = None) -> Report:
    """The report alone."""
    with _opened(source) as (stream, container):
        signing.verify(container.content_hash, container.publisher, container.signature, trust)
        return _decode_report(read_section(stream, container, "report"), container.header.name)


def weight_shapes(program: Program) -> list[tuple[int, ...]]:
    """The shapes of the real numbers behind a program's weights: `[count or 1, slots or N]`, and for those that repeat
    in the slots `[outs, inputs, period]`."""
    loads = {step.out: step.weight for step in program.instructions if isinstance(step, LoadWeight)}
    sums = {
        loads[step.plain]: (len(step.outs), len(step.inputs))
        for step in program.instructions
        if isinstance(step, SumPeriodic)
    }
    return [_shape(weight, sums.get(number), program.params) for number, weight in enumerate(program.weights)]


def _shape(weight: Weight, matrix: tuple[int, int] | None, params: ParameterSet) -> tuple[int, ...]:
    count = max(weight.count, 1)
    if weight.period:
        return (*(matrix or (count, 1)), weight.period)
    return (count, params.n if weight.encoding is Encoding.COEFFICIENTS else params.slots)


def check_interface(part: ClientPart, database: ClientPart | None, program: Program) -> None:
    """Client and database encrypt what the program reads; the client decrypts what it writes."""
    packings = part.inputs if database is None else (*part.inputs, *database.inputs)
    made = [(packed.level, packed.scale, packed.encoding) for packed in packings]
    if made != [(entry.level, entry.scale, entry.encoding) for entry in program.inputs]:
        raise invalid("The client's inputs are not those of the program.")
    given = [(kind.level, programs.scale_text(kind.scale)) for kind in program.checked.outputs]
    same = [(packed.level, packed.scale) for packed in part.outputs] == given
    if not same or not all(map(_may_read, part.outputs, program.checked.outputs)):
        raise invalid("The client's outputs are not those of the program.")


def _may_read(packed: Packed, made: CiphertextType) -> bool:
    """As it was encoded, or slots by the coefficients: the first of those is the mean of all slots."""
    return packed.encoding is made.encoding or (made.encoding, packed.encoding) == (
        Encoding.SLOTS,
        Encoding.COEFFICIENTS,
    )


def _parts(compiled: Compiled) -> tuple[Report, dict[str, list[bytes | memoryview]]]:
    program = compiled.program
    check_interface(compiled.client, compiled.database, program)
    weights = [tensors.narrowed(weight, f"Weight {index}") for index, weight in enumerate(compiled.weights)]
    if [weight.shape for weight in weights] != weight_shapes(program):
        raise invalid("The weights do not have the shapes that the program calls for.")
    # Through plain data once, so that a whole number in a field for fractions is written as it will be read.
    report = read_report(completed(compiled, sum(weight.nbytes for weight in weights)).to_dict())
    encoded = msgspec.json.encode(report)
    _decode_report(encoded, report.model)
    return report, {
        "client": [encode_client(compiled)],
        "report": [encoded],
        "program": [program.encode()],
        "weights": list(tensors.pieces(weights)),
    }


def _decode_report(data: bytes | memoryview, name: str) -> Report:
    try:
        found = msgspec.json.decode(data, type=dict)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise invalid("The report is malformed.") from None
    report = read_report(found)
    if msgspec.json.encode(report) != data:
        raise invalid("The report is not in its canonical form, or has numbers that are not finite.")
    if report.model != name:
        raise invalid("The report is about a model of another name.")
    return report


def _decode_program(data: memoryview) -> Program:
    try:
        return programs.decode(bytes(data))
    except LatticeError as error:
        raise error if error.code == "parameters_insecure" else invalid(error.message) from None


def _inspection(container: Container, publisher: bytes | None) -> Inspection:
    return Inspection(
        container.header.name,
        f"art_{container.content_hash.hex()[:32]}",
        container.content_hash.hex(),
        f"prg_{container.section('program').sha256[:32]}",
        container.section("weights").sha256,
        publisher,
        {section.name: section.size for section in container.header.sections},
        container.has_all,
    )


@contextmanager
def _opened(source: Source) -> Iterator[tuple[BinaryIO, Container]]:
    if isinstance(source, bytes):
        yield (stream := io.BytesIO(source)), read_container(stream, len(source))
        return
    with open(_open(source), "rb") as file:
        yield file, read_container(file, os.fstat(file.fileno()).st_size)


def _open(path: str | os.PathLike[str]) -> int:
    try:
        # Without O_NONBLOCK a named pipe would make the reader wait for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise invalid(f"The file cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise invalid("A compiled model is an ordinary file.")
    return handle


def _write(path: Path, pieces: list[bytes | memoryview]) -> None:
    """Beside the target first, and renamed when it is complete and on disk."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise LatticeError("artefact_invalid", f"The file cannot be written: {error.strerror}.") from None
