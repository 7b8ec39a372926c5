"""The evaluator's side of a compiled model: weights are encoded once, then queries are answered. No secret is seen.

Nothing here imports `lattice.fhe.keys`; a test holds that line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.blinding import Blinder, Blinding
from lattice.fhe.cancel import Cancel
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.public_key import PublicKey
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal import interpreter
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.operations import KeySource
from lattice.fhe.hal.program import Program, Weight
from lattice.fhe.hal.weights import AnyPlaintext, encode_diagonals, encode_periodic
from lattice.fhe.linear_side import LinearPlan, plan_linear


@dataclass(frozen=True, eq=False)
class Prepared:
    """A program with encoded weights, ready for any client."""

    program: Program
    weights: tuple[AnyPlaintext, ...]
    entries: tuple[NDArray[np.int32], ...]
    """For each output which slots, or coefficients, hold results."""
    encodings: tuple[Encoding, ...]
    """How clients read each output. One that was computed in slots may be read in coefficients: the first of them is
    the mean of all slots."""
    backend: Backend
    linear: LinearPlan | None = None
    """A shorter way for programs that are sums of weighted inputs; the same bits."""

    @property
    def params(self) -> ParameterSet:
        """The program's."""
        return self.program.params

    @cached_property
    def identity(self) -> bytes:
        """A hash of the program and of every encoded weight."""
        digest = hashlib.sha256(self.program.digest)
        for weight in self.weights:
            digest.update(np.ascontiguousarray(tensor_of(weight), dtype="<u8").data)
        return digest.digest()

    @property
    def weight_bytes(self) -> int:
        """Memory that the encoded weights take."""
        return sum(tensor_of(weight).nbytes for weight in self.weights)


def tensor_of(weight: AnyPlaintext) -> NDArray[np.uint64]:
    """The residues of any kind of weight."""
    for name in ("poly", "polys", "residues"):
        if hasattr(weight, name):
            tensor: NDArray[np.uint64] = getattr(weight, name)
            return tensor
    raise TypeError(type(weight).__name__)


def prepare(compiled: Compiled, backend: Backend | None = None) -> Prepared:
    """Encode every weight at its level and scale."""
    chosen = backend or find_backend()
    encoder = Encoder(compiled.params, chosen)
    outputs = compiled.client.outputs
    entries, encodings = tuple(one.entries for one in outputs), tuple(one.encoding for one in outputs)
    weights = tuple(
        encode_weight(encoder, declared, values)
        for declared, values in zip(compiled.program.weights, compiled.weights, strict=True)
    )
    linear = plan_linear(compiled.program, weights) if chosen.name == "native" else None
    return Prepared(compiled.program, weights, entries, encodings, chosen, linear)


def evaluate(
    prepared: Prepared,
    evaluation_keys: KeySource | None,
    public_key: PublicKey,
    ciphertexts: Sequence[Ciphertext | SeededCiphertext],
    blinding: Blinding,
    cancel: Cancel | None = None,
) -> list[Ciphertext]:
    """The program's outputs, blinded. Raises `work_cancelled` soon after `cancel` was called."""
    params = prepared.params
    if len(prepared.entries) != len(prepared.program.outputs):
        raise LatticeError("program_invalid", "The program has more or fewer outputs than its client part says.")
    blinder = Blinder(params, public_key, prepared.backend)
    blinding = blinding.bound(prepared.identity, *_asked(evaluation_keys, public_key, ciphertexts))
    results = _results(prepared, evaluation_keys, ciphertexts, cancel)
    return [
        blinder.blind(replace(result, encoding=encoding), entries, blinding, number)
        for number, (result, entries, encoding) in enumerate(
            zip(results, prepared.entries, prepared.encodings, strict=True)
        )
    ]


def _asked(
    evaluation_keys: KeySource | None, public_key: PublicKey, ciphertexts: Sequence[Ciphertext | SeededCiphertext]
) -> list[bytes | NDArray[np.uint64]]:
    """All that a client chose."""
    parts: list[bytes | NDArray[np.uint64]] = [
        str(getattr(evaluation_keys, "id", "")).encode(),
        public_key.seed,
        public_key.b,
    ]
    for x in ciphertexts:
        parts += [x.seed, x.c0] if isinstance(x, SeededCiphertext) else [x.components]
    return parts


def _results(
    prepared: Prepared,
    evaluation_keys: KeySource | None,
    ciphertexts: Sequence[Ciphertext | SeededCiphertext],
    cancel: Cancel | None,
) -> list[Ciphertext]:
    if cancel is not None:
        cancel.check()
    seeded = [x for x in ciphertexts if isinstance(x, SeededCiphertext)]
    if prepared.linear is not None and len(seeded) == len(ciphertexts):
        return prepared.linear.run(seeded)
    inputs = [x.expand(prepared.params) if isinstance(x, SeededCiphertext) else x for x in ciphertexts]
    return interpreter.run(prepared.backend, prepared.program, inputs, evaluation_keys, prepared.weights, cancel)


def encode_weight(encoder: Encoder, declared: Weight, values: NDArray[np.floating[Any]]) -> AnyPlaintext:
    """One weight, in the form that its declaration says."""
    kind = declared.kind
    if kind.period:
        numbers = encode_periodic(encoder, values, level=kind.level, scale=kind.scale)
        return replace(numbers, encoding=kind.encoding)
    if declared.count:
        return encode_diagonals(encoder, values, level=kind.level, scale=kind.scale, extended=kind.extended)
    row = values.reshape(-1)
    return encoder.encode(row, level=kind.level, scale=kind.scale, encoding=kind.encoding)
