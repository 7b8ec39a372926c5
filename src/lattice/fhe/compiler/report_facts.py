"""The part of a report that follows from the program itself: parameters, keys, bytes. Saving a model writes these anew,
so that no stage of the compiler needs to and none can get them wrong."""

from __future__ import annotations

from math import log2

from msgspec.structs import replace

from lattice.fhe.ckks.evaluation_keys import RELINEARISATION, KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.security import max_log_qp
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.levels import sizes
from lattice.fhe.compiler.report_data import BytesReport, KeyReport, ParametersReport, Report, read_report
from lattice.fhe.hal.galois import steps_of
from lattice.fhe.hal.program import Program
from lattice.fhe.serialise.keys import key_bytes

SECURITY_BITS = 128
"""`Parameters` are made with at least so many, or not at all."""


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
        bytes=bytes_report(program, stored),
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


def bytes_report(program: Program, stored_weights: int) -> BytesReport:
    """On the wire, in the file, and in a worker's memory."""
    params = program.params
    return BytesReport(
        sizes.evaluation_keys(params, program.checked.keys) if program.checked.keys else 0,
        sizes.public_key(params),
        sizes.query(program),
        sizes.answer(program),
        stored_weights,
        sizes.encoded_weights(program),
        0 if params.insecure else len(program.encode()),
    )
