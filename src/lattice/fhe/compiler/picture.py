"""The report as one picture: SVG text, written by hand, readable in light and dark, with nothing that is fetched.

From top to bottom: what matters in cards, the modulus chain, then a row for each layer with its box, the levels that it
takes, counts, a bar for its time and one for its error (logarithmic). Arrows are the graph; those that skip layers run
left of the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, log10
from xml.sax.saxutils import escape

from lattice.fhe.compiler.report import bytes_text, chain_blocks, error_text, score_text, time_text
from lattice.fhe.compiler.report_data import LayerReport, Report

WIDTH, MARGIN = 1160, 30
CARD_TOP, CARD_HEIGHT = 86, 86
CHAIN_TOP, CHAIN_HEIGHT = 206, 30
HEADS, ROWS = 292, 310
ROW, BOX_HEIGHT = 66, 48
PILL = 34
BOX_LEFT, BOX_RIGHT = 90, 410
LEVELS, CIPHERTEXTS, ROTATIONS, DIAGONALS = 440, 610, 690, 770
TIME, ERROR, BAR = 800, 970, 90
LANE = 11
DECADES = 8
"""The error bar spans so many powers of ten below the largest."""

_STYLE = """
    .ground { fill: #ffffff; stroke: #d0d7de; }
    .card { fill: #f6f8fa; stroke: #d0d7de; }
    .box { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5; }
    .client { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.5; }
    .rule { stroke: #d0d7de; }
    .line { stroke: #57606a; stroke-width: 1.8; fill: none; }
    .tip { fill: #57606a; }
    .base { fill: #8250df; } .level { fill: #0a58ca; } .special { fill: #9a6700; }
    .left { fill: #0a58ca; } .taken { fill: #f0883e; } .none { fill: #e6eaef; }
    .time { fill: #0a58ca; } .error { fill: #bf3989; }
    .warning { fill: #fff8c5; stroke: #9a6700; }
    text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; font-size: 14px; }
    .title { font-weight: 600; font-size: 22px; }
    .name { font-weight: 600; font-size: 15px; }
    .big { font-weight: 600; font-size: 19px; }
    .small { font-size: 12.5px; fill: #57606a; }
    .inside { font-size: 12px; fill: #ffffff; }
"""

_DARK = """
    .ground { fill: #0d1117; stroke: #30363d; }
    .card { fill: #161b22; stroke: #30363d; }
    .box { fill: #161b22; stroke: #8b949e; }
    .client { fill: #12261e; stroke: #3fb950; }
    .rule { stroke: #30363d; }
    .line { stroke: #9da7b1; }
    .tip { fill: #9da7b1; }
    .left { fill: #58a6ff; } .taken { fill: #f0883e; } .none { fill: #30363d; }
    .time { fill: #58a6ff; } .error { fill: #f778ba; }
    .warning { fill: #3a2d00; stroke: #d29922; }
    text { fill: #e6edf3; }
    .small { fill: #9da7b1; }
"""


def svg(report: Report, *, dark: bool = False) -> str:
    """The picture. With `dark`, the dark colours always apply (to look at them)."""
    below = ROWS + 2 * (PILL + 18) + ROW * len(report.layers)
    height = below + (40 + 22 * len(report.warnings) if report.warnings else 14)
    style = _STYLE + (_DARK if dark else f"    @media (prefers-color-scheme: dark) {{{_DARK}    }}\n")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="t d">',
        f'  <title id="t">{_safe(report.model)}, compiled</title>',
        f'  <desc id="d">{_safe("; ".join(_described(layer) for layer in report.layers))}</desc>',
        f"  <style>{style}  </style>",
        f'  <rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
        _text(MARGIN, 44, _cut(report.model, 70), "title"),
        _text(MARGIN, 68, _subtitle(report), "small"),
        *_cards(report),
        *_chain(report),
        *_rows(report),
        *_warnings(report, below),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _described(layer: LayerReport) -> str:
    levels = f"level {layer.level_in} to {layer.level_out}"
    return f"{layer.name}: {layer.operation}, {levels}, {layer.rotations} rotations, {time_text(layer.time_ms)}"


def _subtitle(report: Report) -> str:
    facts = [report.source, f"for {report.goal}", f"{report.batch} in a batch", report.backend]
    return " · ".join(fact for fact in facts if fact)


# --- cards ----------------------------------------------------------------------------------------------------------


def _cards(report: Report) -> Iterator[str]:
    params, sizes, totals = report.parameters, report.bytes, report.totals
    known = totals.time_ms if totals.measured_ms is None else totals.measured_ms
    took = "not predicted" if not known else "predicted" if totals.measured_ms is None else "measured"
    cards = (
        _accuracy(report),
        ("one query", time_text(known) if known else "–", took),
        ("evaluation keys", bytes_text(sizes.keys) if report.keys else "none", f"{len(report.keys)} keys"),
        ("query", bytes_text(sizes.input), f"and {bytes_text(sizes.output)} back"),
        ("security", f"{params.security_bits} bits", f"log QP {params.log_qp:.1f} of {params.log_qp_limit:.0f}"),
        ("weights", bytes_text(sizes.weights), f"{bytes_text(sizes.encoded_weights)} encoded"),
    )
    width = (WIDTH - 2 * MARGIN + 12) / len(cards) - 12
    for number, (title, value, note) in enumerate(cards):
        x = MARGIN + number * (width + 12)
        yield f'  <rect class="card" x="{x:.1f}" y="{CARD_TOP}" width="{width:.1f}" height="{CARD_HEIGHT}" rx="8"/>'
        yield _text(x + 14, CARD_TOP + 24, title, "small")
        yield _text(x + 14, CARD_TOP + 49, value, "big")
        yield _text(x + 14, CARD_TOP + 71, _cut(note, 25), "small")


def _accuracy(report: Report) -> tuple[str, str, str]:
    found = report.accuracy
    if found is None:
        return "accuracy", "not measured", "no samples were given"
    # A few samples that were really encrypted say that it works, not how well.
    whole = found.encrypted is not None and found.encrypted_samples >= found.samples
    best, how = (found.encrypted, "encrypted") if whole else (found.simulated, "simulated")
    return f"accuracy, {how}", score_text(found, best), f"in the clear {score_text(found, found.clear)}"


# --- modulus chain --------------------------------------------------------------------------------------------------


def _chain(report: Report) -> Iterator[str]:
    blocks = chain_blocks(report.parameters)
    total = sum(bits for _, bits in blocks)
    if not total:
        return
    scale = (WIDTH - 2 * MARGIN) / max(total, report.parameters.log_qp_limit)
    yield _text(
        MARGIN,
        CHAIN_TOP - 10,
        f"modulus chain: N = 2^{report.parameters.log_n}, primes in bits",
        "small",
    )
    yield f'  <rect class="none" x="{MARGIN}" y="{CHAIN_TOP}" width="{WIDTH - 2 * MARGIN}" height="{CHAIN_HEIGHT}"/>'
    x = float(MARGIN)
    for kind, bits in blocks:
        width = bits * scale
        yield f'  <rect class="{kind}" x="{x:.1f}" y="{CHAIN_TOP}" width="{width - 1.5:.1f}" height="{CHAIN_HEIGHT}"/>'
        if width > 22:
            yield _text(x + width / 2, CHAIN_TOP + 20, str(bits), "inside", "middle")
        x += width
    legend = (("base", "base"), ("level", "one level"), ("special", "special, for keys"), ("none", "up to the bound"))
    at = WIDTH - MARGIN - 446
    for kind, words in legend:
        yield f'  <rect class="{kind}" x="{at}" y="{CHAIN_TOP - 20}" width="11" height="11"/>'
        yield _text(at + 16, CHAIN_TOP - 10, words, "small")
        at += 34 + 7 * len(words)


# --- layers ---------------------------------------------------------------------------------------------------------


def _rows(report: Report) -> Iterator[str]:
    heads = (
        (BOX_LEFT, "layer", "start"),
        (LEVELS, "levels", "start"),
        (CIPHERTEXTS, "ciphertexts", "end"),
        (ROTATIONS, "rotations", "end"),
        (DIAGONALS, "weights", "end"),
        (TIME, "predicted time", "start"),
        (ERROR, "predicted error", "start"),
    )
    for x, words, anchor in heads:
        yield _text(x, HEADS, words, "small", anchor)
    yield f'  <path class="rule" d="M{MARGIN} {HEADS + 8} H{WIDTH - MARGIN}"/>'
    yield from _pill(ROWS, f"client encrypts: {bytes_text(report.bytes.input)}")
    for index, layer in enumerate(report.layers):
        yield from _row(report, layer, _top(index))
    end = _top(len(report.layers))
    yield from _pill(end, f"client decrypts: {bytes_text(report.bytes.output)}")
    yield from _edges(report.layers)


def _top(index: int) -> int:
    return ROWS + PILL + 18 + ROW * index


def _pill(y: int, words: str) -> Iterator[str]:
    width = BOX_RIGHT - BOX_LEFT
    yield f'  <rect class="client" x="{BOX_LEFT}" y="{y}" width="{width}" height="{PILL}" rx="{PILL / 2}"/>'
    yield _text((BOX_LEFT + BOX_RIGHT) / 2, y + 22, words, "", "middle")


def _row(report: Report, layer: LayerReport, y: int) -> Iterator[str]:
    width, middle = BOX_RIGHT - BOX_LEFT, y + BOX_HEIGHT / 2 + 5
    yield f'  <rect class="box" x="{BOX_LEFT}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="8"/>'
    yield _text(BOX_LEFT + 14, y + 20, _cut(layer.name, 38), "name")
    yield _text(BOX_LEFT + 14, y + 38, _cut(layer.operation, 48), "small")
    yield from _levels(report, layer, y)
    counts = ((CIPHERTEXTS, layer.ciphertexts), (ROTATIONS, layer.rotations), (DIAGONALS, layer.diagonals))
    for x, count in counts:
        yield _text(x, middle, f"{count:,}", "", "end")
    longest = max(other.time_ms for other in report.layers)
    yield from _bar(TIME, middle, layer.time_ms / longest if longest else 0.0, "time", time_text(layer.time_ms))
    largest = max(other.error for other in report.layers)
    yield from _bar(ERROR, middle, _decades(layer.error, largest), "error", error_text(layer.error))


def _levels(report: Report, layer: LayerReport, y: int) -> Iterator[str]:
    """A square for each level: left, taken by this layer, gone before."""
    top = max(report.totals.levels, *(max(other.level_in, other.level_out) for other in report.layers))
    pitch = min(13.0, 84 / max(top, 1))
    side = pitch - min(2.0, 0.3 * pitch)
    for level in range(top):
        kind = "left" if level < layer.level_out else "taken" if level < layer.level_in else "none"
        x = LEVELS + level * pitch
        yield f'  <rect class="{kind}" x="{x:.1f}" y="{y + 19}" width="{side:.1f}" height="11"/>'
    yield _text(LEVELS + top * pitch + 6, y + 29, f"{layer.level_in} → {layer.level_out}", "small")


def _bar(x: float, middle: float, share: float, kind: str, words: str) -> Iterator[str]:
    width = max(BAR * share, 1.5 if share > 0 else 0.0)
    yield f'  <rect class="none" x="{x}" y="{middle - 11}" width="{BAR}" height="12" rx="3"/>'
    if width:
        yield f'  <rect class="{kind}" x="{x}" y="{middle - 11}" width="{width:.1f}" height="12" rx="3"/>'
    yield _text(x + BAR + 8, middle, words, "small")


def _decades(error: float, largest: float) -> float:
    if not (error > 0 and largest > 0 and isfinite(largest)):
        return 0.0
    return max(0.02, 1 + log10(error / largest) / DECADES)


# --- arrows ---------------------------------------------------------------------------------------------------------


def _edges(layers: tuple[LayerReport, ...]) -> Iterator[str]:
    """From one box down to the next; the others in lanes on the left, an inner lane where it is free."""
    number = {layer.name: index for index, layer in enumerate(layers)}
    arcs = []
    for index, layer in enumerate(layers):
        sources = [number.get(name, -1) for name in layer.inputs] or [index - 1 if _sequential(layers) else -1]
        arcs += [(source, index) for source in sorted(set(sources)) if source < index]
    read = {source for source, _ in arcs}
    arcs += [(index, len(layers)) for index in range(len(layers)) if index not in read]
    lanes: list[list[tuple[int, int]]] = []
    for source, target in sorted(arcs, key=lambda arc: arc[1] - arc[0]):
        if target == source + 1:
            yield _down(_bottom(source), _top(target))
            continue
        lane = next((lane for lane in lanes if all(b <= source or target <= a for a, b in lane)), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append((source, target))
        yield _around(source, target, min(lanes.index(lane), 4))


def _sequential(layers: tuple[LayerReport, ...]) -> bool:
    return not any(layer.inputs for layer in layers)


def _bottom(index: int) -> int:
    return ROWS + PILL if index < 0 else _top(index) + BOX_HEIGHT


def _down(begin: int, end: int) -> str:
    x = (BOX_LEFT + BOX_RIGHT) // 2
    return f'  <path class="line" d="M{x} {begin} V{end - 6}"/>\n{_tip(x, end)}'


def _around(source: int, target: int, lane: int) -> str:
    x = BOX_LEFT - 14 - LANE * lane
    begin = ROWS + PILL // 2 if source < 0 else _top(source) + BOX_HEIGHT // 2
    end = _top(target) + 12
    path = f"M{BOX_LEFT} {begin} H{x + 6} Q{x} {begin} {x} {begin + 6} V{end - 6} Q{x} {end} {x + 6} {end}"
    tip = f'  <path class="tip" d="M{BOX_LEFT} {end} l-8 -4.5 v9 z"/>'
    return f'  <path class="line" d="{path} H{BOX_LEFT - 6}"/>\n{tip}'


def _tip(x: float, y: float) -> str:
    return f'  <path class="tip" d="M{x} {y} l-4.5 -8 h9 z"/>'


# --- text -----------------------------------------------------------------------------------------------------------


def _warnings(report: Report, y: int) -> Iterator[str]:
    if not report.warnings:
        return
    width, height = WIDTH - 2 * MARGIN, 14 + 22 * len(report.warnings)
    yield f'  <rect class="warning" x="{MARGIN}" y="{y}" width="{width}" height="{height}" rx="8"/>'
    for number, warning in enumerate(report.warnings):
        yield _text(MARGIN + 14, y + 24 + 22 * number, _cut(warning, 150), "")


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    placed = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'  <text{named} x="{x:g}" y="{y:g}"{placed}>{_safe(words)}</text>'


def _safe(words: str) -> str:
    """Escaped, and without the control characters that XML forbids."""
    return escape("".join(letter if letter.isprintable() else "\ufffd" for letter in words))


def _cut(words: str, limit: int) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"
