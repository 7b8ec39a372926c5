"""Public and evaluation keys on the wire: seeds and packed b-halves, cut to the level that they are made for."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.evaluation_keys import EvaluationKey, EvaluationKeySet, KeySpec
from lattice.fhe.ckks.parameters import ParameterSet, refuse_insecure
from lattice.fhe.ckks.public_key import PublicKey
from lattice.fhe.ckks.seeds import SEED_BYTES
from lattice.fhe.serialise.bits import pack, packed_bytes, unpack
from lattice.fhe.serialise.frame import Kind, expect_body, invalid, read_frame, write_frame

MAX_KEYS = 4096


class PublicKeyHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose."""

    params: str


class EvaluationKeysHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """(element, level) of each key, ascending."""

    params: str
    keys: list[tuple[int, int]]


def _check_parameters(found: str, params: ParameterSet) -> None:
    if found != params.id:
        raise LatticeError("parameters_mismatch", f"The keys have parameters other than {params.id}.")


def encode_public_key(key: PublicKey, params: ParameterSet) -> bytes:
    """To bytes."""
    refuse_insecure(params)
    key.check(params)
    return write_frame(Kind.PUBLIC_KEY, PublicKeyHeader(params.id), key.seed, pack(key.b, params.primes()))


def decode_public_key(data: bytes | memoryview, params: ParameterSet) -> PublicKey:
    """From bytes."""
    header, body = read_frame(data, Kind.PUBLIC_KEY, PublicKeyHeader)
    _check_parameters(header.params, params)
    expect_body(body, SEED_BYTES + packed_bytes(params.primes(), params.n))
    return PublicKey(params.id, bytes(body[:SEED_BYTES]), unpack(body[SEED_BYTES:], params.primes(), params.n))


def key_bytes(spec: KeySpec, params: ParameterSet) -> int:
    """Bytes of one key inside the body."""
    plan = params.digit_plan(spec.level)
    return SEED_BYTES + len(plan.digits) * packed_bytes(plan.moduli, params.n)


def encode_evaluation_keys(keys: EvaluationKeySet) -> bytes:
    """To bytes."""
    params = keys.params
    refuse_insecure(params)
    header = EvaluationKeysHeader(params.id, [(key.spec.element, key.spec.level) for key in keys])
    body: list[bytes] = []
    for key in keys:
        moduli = params.digit_plan(key.spec.level).moduli
        body += [key.seed, *(pack(poly, moduli) for poly in key.b)]
    return write_frame(Kind.EVALUATION_KEYS, header, *body)


def decode_evaluation_keys(data: bytes | memoryview, params: ParameterSet) -> EvaluationKeySet:
    """From bytes. Seeds must differ: one seed never serves two keys."""
    header, body = read_frame(data, Kind.EVALUATION_KEYS, EvaluationKeysHeader)
    _check_parameters(header.params, params)
    specs = [KeySpec(element, level) for element, level in header.keys]
    if len(specs) > MAX_KEYS or any(a >= b for a, b in pairwise(specs)):
        raise invalid(f"Keys must be in ascending order, each once, {MAX_KEYS} at most.")
    try:
        for spec in specs:
            spec.check(params)
    except LatticeError:
        raise invalid("A key is for an element or a level that these parameters do not have.") from None
    expect_body(body, sum(key_bytes(spec, params) for spec in specs))
    keys, at = [], 0
    for spec in specs:
        keys.append(_decode_key(body[at : at + key_bytes(spec, params)], spec, params))
        at += key_bytes(spec, params)
    if len({key.seed for key in keys}) != len(keys):
        raise invalid("Two keys share a seed.")
    return EvaluationKeySet(params, keys)


def _decode_key(body: memoryview, spec: KeySpec, params: ParameterSet) -> EvaluationKey:
    plan = params.digit_plan(spec.level)
    size = packed_bytes(plan.moduli, params.n)
    starts = range(SEED_BYTES, len(body), size)
    b = np.stack([unpack(body[start : start + size], plan.moduli, params.n) for start in starts])
    return EvaluationKey(params.id, spec, bytes(body[:SEED_BYTES]), b)
