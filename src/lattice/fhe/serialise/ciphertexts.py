"""Ciphertexts and seeded ciphertexts on the wire: packed limb by limb, component by component, cut to their level."""

from __future__ import annotations

import msgspec
import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding, check_shape
from lattice.fhe.ckks.parameters import ParameterSet, refuse_insecure
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.ckks.seeds import SEED_BYTES
from lattice.fhe.serialise.bits import pack, packed_bytes, unpack
from lattice.fhe.serialise.frame import Kind, expect_body, invalid, read_frame, read_scale, write_frame, write_scale


class CiphertextHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the residues mean."""

    params: str
    level: int
    scale: str
    encoding: Encoding
    components: int


def encode_ciphertext(ciphertext: Ciphertext | SeededCiphertext, params: ParameterSet) -> bytes:
    """To bytes; a seeded one as seed and c0."""
    refuse_insecure(params)
    if isinstance(ciphertext, SeededCiphertext):
        ciphertext.check(params)
        body = [ciphertext.seed, pack(ciphertext.c0, params.q_moduli(ciphertext.level))]
        return write_frame(Kind.SEEDED_CIPHERTEXT, _header(ciphertext, 2), *body)
    check_shape(ciphertext, params)
    body = [pack(poly, params.q_moduli(ciphertext.level)) for poly in ciphertext.components]
    return write_frame(Kind.CIPHERTEXT, _header(ciphertext, len(body)), *body)


def _header(value: Ciphertext | SeededCiphertext, components: int) -> CiphertextHeader:
    return CiphertextHeader(value.params_id, value.level, write_scale(value.scale), value.encoding, components)


def _moduli(header: CiphertextHeader, params: ParameterSet) -> tuple[int, ...]:
    if header.params != params.id:
        raise LatticeError("parameters_mismatch", f"The ciphertext has parameters other than {params.id}.")
    if not 0 <= header.level <= params.max_level:
        raise invalid(f"There is no level {header.level}.")
    return params.q_moduli(header.level)


def decode_ciphertext(data: bytes | memoryview, params: ParameterSet) -> Ciphertext:
    """From bytes, for the receiver's own parameters."""
    header, body = read_frame(data, Kind.CIPHERTEXT, CiphertextHeader)
    moduli = _moduli(header, params)
    if header.components not in (2, 3):
        raise invalid(f"A ciphertext has 2 or 3 components, not {header.components}.")
    size = packed_bytes(moduli, params.n)
    expect_body(body, size * header.components)
    polys = [unpack(body[i * size : (i + 1) * size], moduli, params.n) for i in range(header.components)]
    return Ciphertext(params.id, header.level, read_scale(header.scale), np.stack(polys), header.encoding)


def decode_seeded_ciphertext(data: bytes | memoryview, params: ParameterSet) -> SeededCiphertext:
    """From bytes, for the receiver's own parameters; not yet expanded."""
    header, body = read_frame(data, Kind.SEEDED_CIPHERTEXT, CiphertextHeader)
    moduli = _moduli(header, params)
    if header.components != 2:
        raise invalid(f"A seeded ciphertext has 2 components, not {header.components}.")
    expect_body(body, SEED_BYTES + packed_bytes(moduli, params.n))
    seed, c0 = bytes(body[:SEED_BYTES]), unpack(body[SEED_BYTES:], moduli, params.n)
    return SeededCiphertext(params.id, header.level, read_scale(header.scale), seed, c0, header.encoding)
