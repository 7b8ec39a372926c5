"""The report for people: facts and tables as plain text, and the words that the picture uses too.

`fhe` stays free of a terminal library: the command line prints the same `facts` and `tables` in colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lattice.fhe.compiler.report_data import AccuracyReport, KeyReport, ParametersReport, Report

MANY = 40
"""Of ranges, the text shows so many."""


class Table(NamedTuple):
    """A title, columns, rows; columns from `numbers` on are aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int


def text(report: Report) -> str:
    """Everything, as plain text."""
    lines = [report.model, ""]
    lines += [f"{name:<18}{value}" for name, value in facts(report)]
    for table in tables(report):
        lines += ["", table.title, *aligned(table)]
    lines += ["", *(f"warning: {warning}" for warning in report.warnings)] if report.warnings else []
    return "\n".join(lines) + "\n"


def aligned(table: Table) -> Iterator[str]:
    """The lines of a table."""
    lines = (table.columns, *table.rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.columns))]
    for line in lines:
        cells = [
            cell.rjust(width) if column >= table.numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Name and value of what fits on a line each, the most important first."""
    totals, sizes, params = report.totals, report.bytes, report.parameters
    yield "accuracy", accuracy_line(report)
    yield "one query", _time_line(report)
    yield "error", f"{error_text(totals.error)} predicted standard deviation of a result" + _seen(report)
    for fitted in report.activations:
        if fitted.is_result:
            what = "probability" if fitted.function == "sigmoid" else f"value of {fitted.function}"
            yield "fit of results", f"a {what} is off by at most {error_text(fitted.seen_error)} where calibrated"
    keys = f"{bytes_text(sizes.keys)}, {len(report.keys)} keys" if report.keys else "none"
    yield "evaluation keys", f"{keys}{_public(report)}"
    yield "query", f"{bytes_text(sizes.input)} in, {bytes_text(sizes.output)} out"
    stored = f"{bytes_text(sizes.weights)} in the file, " if sizes.weights else ""
    yield "weights", f"{stored}{bytes_text(sizes.encoded_weights)} in a worker's memory"
    yield "parameters", parameters_line(params)
    yield "security", f"{params.security_bits} bits ({params.security}): log QP {_of(params)}"
    work = f"{totals.rotations} rotations, {totals.diagonals} products with weights, {totals.products} of ciphertexts"
    yield "work", f"{totals.levels} levels, {work}"
    if report.stages:
        yield "compiled in", _compile_line(report)


def tables(report: Report) -> Iterator[Table]:
    """Layers, keys, activations, ranges: those that there are."""
    if report.layers:
        yield _layers(report)
    if report.keys:
        yield Table("keys", ("kind", "level", "count", "bytes", "steps"), tuple(_keys(report.keys)), 1)
    if report.activations:
        columns = ("activation", "function", "degree", "calibrated on", "largest error", "fitted on", "largest error")
        rows = (
            (
                *(a.name, a.function, str(a.degree)),
                *(_interval(a.seen), error_text(a.seen_error)),
                *(_interval(a.interval), error_text(a.max_error)),
            )
            for a in report.activations
        )
        yield Table("activations, as polynomials", columns, tuple(rows), 2)
    if report.ranges:
        shown = report.ranges[:MANY]
        rows_of = ((r.name, f"{r.low:.4g}", f"{r.high:.4g}", f"{r.margin:.4g}") for r in shown)
        left_out = f" (the first {MANY} of {len(report.ranges)})" if len(report.ranges) > MANY else ""
        yield Table(f"ranges in calibration{left_out}", ("value", "low", "high", "margin"), tuple(rows_of), 1)


def _interval(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.4g}, {ends[1]:.4g}]"


def _layers(report: Report) -> Table:
    columns = ("layer", "operation", "levels", "ciphertexts", "rotations", "weights", "time", "error")
    rows = tuple(
        (
            layer.name,
            layer.operation,
            f"{layer.level_in} → {layer.level_out}",
            str(layer.ciphertexts),
            str(layer.rotations),
            str(layer.diagonals),
            time_text(layer.time_ms),
            error_text(layer.error),
        )
        for layer in report.layers
    )
    return Table("layers", columns, rows, 3)


def _keys(keys: Sequence[KeyReport]) -> Iterator[tuple[str, ...]]:
    """Keys of one kind and level in one line."""
    groups: dict[tuple[str, int], list[KeyReport]] = {}
    for key in keys:
        groups.setdefault((key.kind, key.level), []).append(key)
    for (kind, level), members in sorted(groups.items()):
        steps = ", ".join(str(key.steps) for key in sorted(members, key=lambda key: key.steps) if key.steps)
        size = bytes_text(sum(key.bytes for key in members))
        yield kind, str(level), str(len(members)), size, steps


# --- lines ----------------------------------------------------------------------------------------------------------


def accuracy_line(report: Report) -> str:
    """In the clear, simulated, encrypted."""
    found = report.accuracy
    if found is None:
        return "not measured: no samples were given"
    parts = [f"{score_text(found, found.clear)} in the clear"]
    if found.simulated is not None:
        parts.append(f"{score_text(found, found.simulated)} simulated")
    if found.encrypted is not None:
        parts.append(f"{score_text(found, found.encrypted)} encrypted (on {found.encrypted_samples})")
    return f"{', '.join(parts)}; {found.samples} samples"


def score_text(found: AccuracyReport, score: float | None) -> str:
    """A share of right labels in per cent; any other measure as it is."""
    if score is None:
        return "–"
    return f"{100 * score:.2f} %" if found.metric == "accuracy" else f"{found.metric} {score:.5f}"


def parameters_line(params: ParametersReport) -> str:
    """Ring, chain and scale, equal sizes together: N = 2^13, Q = 50 + 4·26, P = 29 + 28, scale 2^26."""
    blocks = chain_blocks(params)
    modulus = _sum([bits for kind, bits in blocks if kind != "special"])
    special = _sum([bits for kind, bits in blocks if kind == "special"])
    keys = f", P = {special}" if special else ""
    return f"N = 2^{params.log_n}, Q = {modulus}{keys} bits, scale 2^{params.scale_bits:.4g}"


def chain_blocks(params: ParametersReport) -> list[tuple[str, int]]:
    """Every prime as its role (`base`, `level`, `special`) and its bits."""
    levels = [("level", bits) for group in params.level_bits for bits in group]
    return [*(("base", bits) for bits in params.base_bits), *levels, *(("special", b) for b in params.special_bits)]


def _sum(sizes: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for bits in sizes:
        if parts and parts[-1][0] == bits:
            parts[-1][1] += 1
        else:
            parts.append([bits, 1])
    return " + ".join(str(bits) if count == 1 else f"{count}·{bits}" for bits, count in parts)


def _of(params: ParametersReport) -> str:
    limit = f", at most {params.log_qp_limit:.0f} for this ring" if params.log_qp_limit else ""
    return f"{params.log_qp:.1f}{limit}"


def _time_line(report: Report) -> str:
    totals = report.totals
    parts = [f"{time_text(totals.measured_ms)} measured"] if totals.measured_ms is not None else []
    if totals.time_ms:
        backend = f" ({report.backend})" if report.backend else ""
        parts.append(f"{time_text(totals.time_ms)} predicted on one core{backend}")
    known = totals.time_ms or totals.measured_ms
    each = f", {time_text(known / report.batch)} a sample" if known and report.batch > 1 else ""
    return f"{', '.join(parts) or 'time not predicted'}, {report.batch} in a batch{each}"


def _seen(report: Report) -> str:
    found = report.accuracy
    return "" if found is None or found.max_error is None else f", {error_text(found.max_error)} the largest seen"


def _public(report: Report) -> str:
    return f"; public key {bytes_text(report.bytes.public_key)}" if report.bytes.public_key else ""


def _compile_line(report: Report) -> str:
    total = sum(stage.seconds for stage in report.stages)
    slowest = max(report.stages, key=lambda stage: stage.seconds)
    memory = f", peak memory {bytes_text(report.peak_memory_bytes)}" if report.peak_memory_bytes else ""
    return f"{total:.2f} s, the longest of it {slowest.name} ({slowest.seconds:.2f} s){memory}"


# --- numbers --------------------------------------------------------------------------------------------------------


def bytes_text(count: int) -> str:
    """In decimal units, three digits: 11.2 MB."""
    if count < 1000:
        return f"{count} bytes"
    size, unit = count / 1000, 0
    while size >= 999.5 and unit < 3:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {('KB', 'MB', 'GB', 'TB')[unit]}"


def time_text(milliseconds: float) -> str:
    """Three digits in the unit that fits: 950 µs, 9.31 ms, 2.1 s."""
    if milliseconds < 0.9995:
        return f"{milliseconds * 1000:.3g} µs"
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.3g} s"


def error_text(error: float) -> str:
    """Two digits: 3.1e-03."""
    return "0" if error == 0 else f"{error:.1e}"
