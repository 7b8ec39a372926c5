"""Draws `docs/pictures/flow.svg`: who talks to whom, and who sees what. `make docs` writes it.

The picture brings its own background in both colour schemes, so that it is readable on any page.
"""

from __future__ import annotations

from typing import NamedTuple

WIDTH, HEIGHT = 1040, 440
TOP, BOX_HEIGHT = 84, 96
LANE_TOP, LANE_HEIGHT, LANE_GAP = 262, 46, 62

_STYLE = """
    .ground { fill: #ffffff; stroke: #d0d7de; }
    .box { fill: #f6f8fa; stroke: #57606a; stroke-width: 1.5; }
    .zone { fill: none; stroke: #8c959f; stroke-dasharray: 5 5; }
    .line { stroke: #24292f; stroke-width: 2; fill: none; }
    .tip { fill: #24292f; }
    .plain { fill: #ffe2a8; stroke: #9a6700; }
    .sealed { fill: #cfe5ff; stroke: #0a58ca; }
    text { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; font-size: 15px; }
    .name { font-weight: 600; font-size: 17px; }
    .small { font-size: 13px; fill: #57606a; }
    .lane { font-size: 14px; font-weight: 600; }
    .said { font-size: 13px; }
"""

_DARK = """
    .ground { fill: #0d1117; stroke: #30363d; }
    .box { fill: #161b22; stroke: #8b949e; }
    .zone { stroke: #6e7681; }
    .line { stroke: #e6edf3; }
    .tip { fill: #e6edf3; }
    .plain { fill: #4d3800; stroke: #d29922; }
    .sealed { fill: #0c2d5e; stroke: #58a6ff; }
    text { fill: #e6edf3; }
    .small { fill: #9da7b1; }
"""


class Box(NamedTuple):
    """One party."""

    x: int
    width: int
    name: str
    lines: tuple[str, ...]


APP = Box(30, 170, "Your app", ("OpenAI's SDK, or ours",))
GATEWAY = Box(290, 190, "Gateway", ("keys, routing,", "metering, ledger"))
DAEMON = Box(640, 160, "Daemon", ("no inbound port", "holds the work keys"))
MODEL = Box(870, 130, "Model", ("GGUF, Ollama, …",))


class Lane(NamedTuple):
    """What each party sees in one mode: `(from, to, class, text)` for each stretch."""

    title: str
    stretches: tuple[tuple[int, int, str, str], ...]


_EDGES = (30, 250, 500, 615, 1010)
LANES = (
    Lane(
        "mode gateway: an unmodified OpenAI client",
        (
            (_EDGES[0], _EDGES[1], "plain", "plaintext (inside TLS)"),
            (_EDGES[1], _EDGES[2], "plain", "plaintext, while it seals and opens"),
            (_EDGES[2], _EDGES[3], "sealed", "ciphertext"),
            (_EDGES[3], _EDGES[4], "plain", "plaintext, on your own machine"),
        ),
    ),
    Lane(
        "mode end_to_end: our SDK, or OpenAI's SDK with SealedTransport",
        (
            (_EDGES[0], _EDGES[1], "plain", "plaintext"),
            (_EDGES[1], _EDGES[3], "sealed", "ciphertext; who, which machine, when, how long"),
            (_EDGES[3], _EDGES[4], "plain", "plaintext, on your own machine"),
        ),
    ),
)


def svg(*, dark: bool = False) -> str:
    """The picture. With `dark`, the dark colours always apply (to look at them)."""
    style = _STYLE + (_DARK if dark else f"    @media (prefers-color-scheme: dark) {{{_DARK}    }}\n")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="t d">',
        '  <title id="t">A request\'s way from the app to the model</title>',
        '  <desc id="d">The app sends a request to the gateway. The daemon on the user\'s machine polls the gateway '
        "and gets sealed work; the model answers there. In mode gateway the gateway sees plaintext while it seals; in "
        "mode end_to_end it sees ciphertext only.</desc>",
        f"  <style>{style}  </style>",
        f'  <rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10"/>',
        '  <rect class="zone" x="615" y="36" width="405" height="170" rx="8"/>',
        _text(630, 60, "your own machine", "small"),
        _text(547, 62, "sealed relay", "lane", "middle"),
        *(_box(box) for box in (APP, GATEWAY, DAEMON, MODEL)),
        _arrow(200, 286, 120, "request"),
        _arrow(286, 200, 158, "answer", below=True),
        _arrow(636, 484, 108, "polls, outbound"),
        _arrow(484, 636, 140, "sealed work", below=True),
        _arrow(804, 866, 120, ""),
        _arrow(866, 804, 146, ""),
        *(_lane(lane, LANE_TOP + index * (LANE_HEIGHT + LANE_GAP)) for index, lane in enumerate(LANES)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _box(box: Box) -> str:
    middle = box.x + box.width / 2
    lines = [_text(middle, TOP + 62 + 18 * index, line, "small", "middle") for index, line in enumerate(box.lines)]
    frame = f'  <rect class="box" x="{box.x}" y="{TOP}" width="{box.width}" height="{BOX_HEIGHT}" rx="8"/>'
    return "\n".join([frame, _text(middle, TOP + 36, box.name, "name", "middle"), *lines])


def _arrow(begin: int, end: int, y: int, label: str, *, below: bool = False) -> str:
    back = -9 if end > begin else 9
    tip = f"{end},{y} {end + back},{y - 5} {end + back},{y + 5}"
    parts = [
        f'  <line class="line" x1="{begin}" y1="{y}" x2="{end + back}" y2="{y}"/>',
        f'  <polygon class="tip" points="{tip}"/>',
    ]
    if label:
        parts.append(_text((begin + end) / 2, y + (20 if below else -9), label, "small", "middle"))
    return "\n".join(parts)


def _lane(lane: Lane, y: int) -> str:
    parts = [_text(30, y - 10, lane.title, "lane")]
    for begin, end, kind, said in lane.stretches:
        parts.append(
            f'  <rect class="{kind}" x="{begin + 2}" y="{y}" width="{end - begin - 4}" height="{LANE_HEIGHT}" rx="4"/>'
        )
        parts.append(_text((begin + end) / 2, y + 28, said, "said", "middle"))
    return "\n".join(parts)


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    return f'  <text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'
