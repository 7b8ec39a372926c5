"""Explains a broken set-up in words: each check says what it found and, where that is bad, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple


class Check(NamedTuple):
    """One finding."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


async def examine(config: Path | None) -> list[Check]:
    """Run every check that the earlier ones leave possible."""
    return [Check("doctor", "warn", f"not written yet ({config})")]
