"""Bytes, exactly as they will be on the wire and in memory: nothing is estimated."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.seeds import SEED_BYTES
from lattice.fhe.hal.program import Program, parse_scale
from lattice.fhe.hal.weights import moduli_of
from lattice.fhe.serialise.bits import packed_bytes
from lattice.fhe.serialise.ciphertexts import CiphertextHeader
from lattice.fhe.serialise.frame import Kind, write_frame, write_scale
from lattice.fhe.serialise.keys import EvaluationKeysHeader, PublicKeyHeader, key_bytes


def _frame(kind: Kind, header: msgspec.Struct, body: int) -> int:
    return len(write_frame(kind, header)) + body


def evaluation_keys(params: ParameterSet, keys: Sequence[KeySpec]) -> int:
    """All keys in one object."""
    header = EvaluationKeysHeader(params.id, [(key.element, key.level) for key in sorted(keys)])
    return _frame(Kind.EVALUATION_KEYS, header, sum(key_bytes(key, params) for key in keys))


def public_key(params: ParameterSet) -> int:
    """The public key, with which results are blinded."""
    body = SEED_BYTES + packed_bytes(params.primes(), params.n)
    return _frame(Kind.PUBLIC_KEY, PublicKeyHeader(params.id), body)


def query(program: Program) -> int:
    """Every input, seeded."""
    total = 0
    for declared in program.inputs:
        header = _header(program.params, declared.level, declared.scale, declared.encoding)
        body = SEED_BYTES + packed_bytes(program.params.q_moduli(declared.level), program.params.n)
        total += _frame(Kind.SEEDED_CIPHERTEXT, header, body)
    return total


def answer(program: Program) -> int:
    """Every output, two components."""
    total = 0
    for kind in program.checked.outputs:
        scale = write_scale(kind.scale)
        header = CiphertextHeader(program.params.id, kind.level, scale, kind.encoding, 2)
        total += _frame(
            Kind.CIPHERTEXT, header, 2 * packed_bytes(program.params.q_moduli(kind.level), program.params.n)
        )
    return total


def _header(params: ParameterSet, level: int, scale: str, encoding: Encoding) -> CiphertextHeader:
    return CiphertextHeader(params.id, level, write_scale(parse_scale(scale)), encoding, 2)


def encoded_weights(program: Program) -> int:
    """What the evaluator keeps in memory, eight bytes a residue."""
    params, total = program.params, 0
    for declared in program.weights:
        kind = declared.kind
        limbs = len(moduli_of(params, kind.level, extended=kind.extended))
        width = params.n if not kind.period else 1 if kind.period == 1 else 2 * kind.period
        total += max(declared.count, 1) * limbs * width * 8
    return total
