"""The part of a report that follows from the program itself: parameters, keys, bytes. Saving a model writes these anew,
so that no stage of the compiler needs to and none can get them wrong."""

from __future__ import annotations

from math import log2

from msgspec.structs import replace

from lattice.fhe.ckks.evaluation_keys import RELINEARISATION, KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.security import max_log_qp
from lattice.fhe.ckks.seeds import SEED_BYTES
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.report_data import BytesReport, KeyReport, ParametersReport, Report, read_report
from lattice.fhe.hal.galois import steps_of
from lattice.fhe.hal.program import Program, Weight
from lattice.fhe.serialise.bits import packed_bytes
from lattice.fhe.serialise.keys import key_bytes

SECURITY_BITS = 128
"""`Parameters` are made with at least so many, or not at all."""
WORD = 8


def completed(compiled: Compiled, stored_weights: int | None = None) -> Report:
    """The model's report with everything in it that the program decides; `stored_weights` are their bytes in a file."""
    report, program = read_report(compiled.report), compiled.program
    keys = key_reports(program)
    stored = report.bytes.weights if stored_weights is None else stored_weights
    totals = replace(
        report.totals,
        levels=max((entry.level for entry in program.inputs), default=0),
        rotation_keys=sum(key.kind == "rotation" for key in keys),
        instructions=len(program.instructions),
        peak_ciphertexts=program.checked.peak_ciphertexts,
    )
    return replace(
        report,
        batch=compiled.client.batch,
        slots=program.params.slots,
        parameters=parameters_report(program.params),
        keys=keys,
        bytes=bytes_report(program, stored, sum(key.bytes for key in keys)),
        totals=totals,
    )


def parameters_report(params: ParameterSet) -> ParametersReport:
    """The ring and the chain."""
    return ParametersReport(
        params.id,
        params.log_n,
        tuple(q.bit_length() for q in params.base),
        tuple(tuple(q.bit_length() for q in group) for group in params.levels),
        tuple(q.bit_length() for q in params.special),
        round(log2(params.scale), 6),
        round(params.log_q(params.max_level), 3),
        round(params.log_qp, 3),
        float(max_log_qp(params.log_n, params.security)),
        params.security.value,
        0 if params.insecure else SECURITY_BITS,
    )


def key_reports(program: Program) -> tuple[KeyReport, ...]:
    """What a client must make, rotations by their steps."""
    params = program.params
    return tuple(_key_report(spec, params) for spec in program.checked.keys)


def _key_report(spec: KeySpec, params: ParameterSet) -> KeyReport:
    size = key_bytes(spec, params)
    if spec.element == RELINEARISATION:
        return KeyReport("relinearisation", spec.level, size)
    steps = steps_of(spec.element, params.n)
    return KeyReport("conjugation" if steps is None else "rotation", spec.level, size, steps or 0)


def bytes_report(program: Program, weights: int, keys: int) -> BytesReport:
    """On the wire (without the few bytes of frames), in the file, and in a worker's memory."""
    params = program.params
    sent = sum(SEED_BYTES + _packed(params, entry.level) for entry in program.inputs)
    answered = sum(2 * _packed(params, kind.level) for kind in program.checked.outputs)
    public = SEED_BYTES + packed_bytes(params.primes(), params.n)
    encoded = sum(_encoded_bytes(weight, params) for weight in program.weights)
    size = 0 if params.insecure else len(program.encode())
    return BytesReport(keys, public, sent, answered, weights, encoded, size)


def _packed(params: ParameterSet, level: int) -> int:
    return packed_bytes(params.q_moduli(level), params.n)


def _encoded_bytes(weight: Weight, params: ParameterSet) -> int:
    limbs = len(params.q_moduli(weight.level)) + (len(params.special) if weight.extended else 0)
    values = 1 if weight.period == 1 else 2 * weight.period if weight.period else params.n
    return max(weight.count, 1) * limbs * values * WORD
