"""Draws `docs/pictures/report.svg` from figures that a compilation of the MNIST network gave. `make docs` writes it."""

from __future__ import annotations

import json
from pathlib import Path

FIGURES = Path(__file__).with_name("report.json")
"""What `lattice models report --json` printed under `report`."""


def svg() -> str:
    """The picture that the command line would draw of them."""
    from lattice.fhe.compiler import picture
    from lattice.fhe.compiler.report_data import read_report

    return picture.svg(read_report(json.loads(FIGURES.read_text("utf-8"))))
