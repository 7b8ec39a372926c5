"""A compiled model as two flat files that the native executables map into memory: what the client and the server need.

    0   8  "LatSuit1"
    8   8  n, the number of sections
    16  16 for each section its first byte and its length in bytes
    …      the sections, each at a multiple of 4096

All numbers are 64-bit little-endian words, reals are their IEEE bits. Both files have the section SCHEME; the client's
has CLIENT, the server's PLAN (see native/program/plan.hpp), WEIGHTS (the residues, one weight after another) and
RESULTS; the sections' places in the file are their numbers, and those that a file lacks are empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.embedding import orbit
from lattice.fhe.compiler.client_part import ArgMax, ClientPart, Packed
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.hal.plan import plan_of
from lattice.fhe.hal.program import parse_scale
from lattice.fhe.server_side import prepare, tensor_of

MAGIC = b"LatSuit1"
PAGE = 4096

Words = NDArray[np.uint64]


class Section(IntEnum):
    """As in `bundle.hpp`."""

    SCHEME = 0
    TWIDDLES = 1
    CLIENT = 2
    RESULTS = 3
    PLAN = 4
    WEIGHTS = 5


def write(compiled: Compiled, folder: Path) -> None:
    """`client.bundle` and `server.bundle`. The folder is made."""
    part = compiled.client
    _require_simple(part)
    identity = hashlib.sha256(compiled.program.digest).digest()
    shared = {Section.SCHEME: _scheme(compiled, identity), Section.TWIDDLES: _twiddles(compiled.params.n)}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "client.bundle", shared | {Section.CLIENT: _client(part)})
    weights = [np.ascontiguousarray(tensor_of(w)).reshape(-1) for w in prepare(compiled).weights]
    server = {
        Section.RESULTS: _packed(part.outputs),
        Section.PLAN: plan_of(compiled.program).words,
        Section.WEIGHTS: np.concatenate(weights),
    }
    _write(folder / "server.bundle", shared | server)


def _require_simple(part: ClientPart) -> None:
    """What the executables do besides cryptography is a gather, a mean and the choice of the largest."""
    if part.before or len(part.after) != 1 or not isinstance(part.after[0], ArgMax):
        raise LatticeError(
            "program_invalid", "The suite's client knows models without preparation that end in a choice."
        )
    if any(packed.encoding is not Encoding.SLOTS for packed in (*part.inputs, *part.outputs)):
        raise LatticeError("program_invalid", "The suite's client packs slots only.")


def _scheme(compiled: Compiled, identity: bytes) -> Words:
    """The program's identity (4 words), log2 N, η, levels, primes, digits of every level, keys."""
    params = compiled.params
    levels = range(params.max_level + 1)
    numbers = [params.log_n, params.error_eta, len(levels), *(len(params.q_moduli(level)) for level in levels)]
    numbers += [*params.q_moduli(params.max_level), len(params.special), *params.special]
    for level in levels:
        digits = params.key_switch_context(level, level).digits if params.special else ()
        numbers += [len(digits), *chain.from_iterable(digits)]
    numbers += [len(compiled.keys), *chain.from_iterable(compiled.keys)]
    return np.concatenate([np.frombuffer(identity, dtype="<u8"), np.array(numbers, dtype=np.uint64)])


def _twiddles(n: int) -> Words:
    """Stage by stage all cosines, then all sines: see `lattice.fhe.ckks.embedding`."""
    return np.concatenate([part for stage in orbit(n).stages for part in stage]).view(np.uint64)


def _client(part: ClientPart) -> Words:
    """Features and results of a sample, samples of a query, then the inputs and the outputs."""
    head = [int(np.prod(part.feature_shape)), part.results, part.batch]
    return np.concatenate([np.array(head, dtype=np.uint64), _packed(part.inputs), _packed(part.outputs)])


def _packed(all_of: Sequence[Packed]) -> Words:
    """How many; for each its level, its scale, the number of its slots, and their entries (or −1)."""
    pieces = [np.array([len(all_of)], dtype=np.uint64)]
    for packed in all_of:
        scale = np.array([float(parse_scale(packed.scale))]).view(np.uint64)[0]
        pieces.append(np.array([packed.level, scale, len(packed.entries)], dtype=np.uint64))
        pieces.append(np.maximum(packed.entries.astype(np.int64), -1).view(np.uint64))
    return np.concatenate(pieces)


def _write(path: Path, sections: dict[Section, Words]) -> None:
    at, table, places = PAGE, [], []
    for section in Section:
        size = sections[section].nbytes if section in sections else 0
        table += [at, size]
        places.append(at)
        at += -(-size // PAGE) * PAGE
    with path.open("wb") as file:
        file.write(MAGIC + np.array([len(Section), *table], dtype="<u8").tobytes())
        for section, words in sorted(sections.items()):
            file.seek(places[section])
            file.write(words.astype("<u8", copy=False).tobytes())
