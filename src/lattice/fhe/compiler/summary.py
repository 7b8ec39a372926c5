"""Puts the report together from what the stages found; what the program itself says is `report_facts`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace as with_fields

from msgspec.structs import replace

from lattice.fhe.compiler import describe
from lattice.fhe.compiler.accuracy import Accuracy
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.front import Front
from lattice.fhe.compiler.levels.cost import Machine, estimate
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.compiler.levels.search import Found
from lattice.fhe.compiler.report_data import (
    AccuracyReport,
    ActivationReport,
    RangeReport,
    Report,
    StageReport,
    read_report,
)
from lattice.fhe.compiler.report_facts import completed
from lattice.fhe.hal.choose import choose


def report_of(
    compiled: Compiled,
    front: Front,
    found: Found,
    accuracy: Accuracy,
    options: Options,
    stages: Sequence[StageReport],
) -> Report:
    """Of a model that was packed, lowered and predicted."""
    warnings = list(_warnings(front, accuracy, options))
    if not found.precise:
        warnings.append("The predicted error is larger than the precision that was asked for.")
    if options.max_key_bytes is not None and found.key_bytes > options.max_key_bytes:
        warnings.append(f"The keys take {found.key_bytes} bytes, more than the {options.max_key_bytes} asked for.")
    report = replace(
        _common(front, accuracy, options, stages),
        layers=describe.layers(front.graph, found),
        totals=describe.totals(found),
        warnings=tuple(warnings),
    )
    return completed(with_fields(compiled, report=report.to_dict()))


def linear_report(
    compiled: Compiled,
    front: Front,
    accuracy: Accuracy,
    options: Options,
    stages: Sequence[StageReport],
    machine: Machine,
) -> Report:
    """Of a linear model, whose packing has reported its one layer."""
    made = read_report(compiled.report)
    program = compiled.program
    time = round(estimate(program, ("all",) * len(program.instructions), machine).seconds * 1e3, 4)
    common = _common(front, accuracy, options, stages)
    warnings = (*made.warnings, *_warnings(front, accuracy, options))
    layers = tuple(replace(layer, time_ms=time / len(made.layers)) for layer in made.layers)
    report = replace(common, layers=layers, totals=replace(made.totals, time_ms=time), warnings=warnings)
    return completed(with_fields(compiled, report=report.to_dict()))


def _common(front: Front, accuracy: Accuracy, options: Options, stages: Sequence[StageReport]) -> Report:
    backend = choose()
    return Report(
        model=front.graph.name,
        goal=str(options.goal),
        backend=f"{backend.name} {backend.isa}",
        accuracy=AccuracyReport(
            accuracy.samples,
            accuracy.metric,
            accuracy.clear,
            accuracy.simulated,
            agreement=accuracy.agreement,
            max_error=accuracy.max_error,
        ),
        ranges=tuple(RangeReport(name, seen.low, seen.high) for name, seen in front.calibration.observed.items()),
        activations=tuple(
            ActivationReport(
                note.node,
                note.function,
                note.degree,
                (note.low, note.high),
                note.max_error,
                (note.seen_low, note.seen_high),
                note.seen_error,
                note.is_result,
            )
            for note in front.approximation.fitted
        ),
        stages=tuple(stages),
        peak_memory_bytes=peak_memory(),
    )


def _warnings(front: Front, accuracy: Accuracy, options: Options) -> list[str]:
    found = list(front.warnings)
    if accuracy.outside:
        share = f"{accuracy.outside} of {accuracy.samples}"
        found.append(f"{share} samples left the calibrated ranges by so much that the encrypted result is wrong.")
    if accuracy.lost > options.allowed(accuracy.metric, accuracy.samples):
        found.append("The simulated accuracy misses the tolerance; it was compiled because that was allowed.")
    return found


def peak_memory() -> int:
    """Of this process so far, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
