"""How the demo prints: headings, steps with their time, bars."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lattice.core.errors import LatticeError

if TYPE_CHECKING:
    from rich.console import Console

Show = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is (0: nobody knows)."""


class Screen:
    """The demo's side of a terminal, or of a pipe."""

    def __init__(self, out: Console) -> None:
        self.out = out

    def heading(self, text: str) -> None:
        """A new part."""
        self.out.print(f"\n[bold]{text}[/bold]")

    def note(self, text: str) -> None:
        """Something beside the point."""
        self.out.print(f"  {text}", style="dim", markup=False)

    def line(self, text: str) -> None:
        """Words as they are."""
        self.out.print(f"  {text}", markup=False)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Something that takes a while."""
        begun = time.monotonic()
        with self.out.status(f"{text} …"):
            yield
        self._done(text, begun)

    @contextmanager
    def counted_step(self, text: str) -> Iterator[Show]:
        """Something that takes a while and says how far it is; its bar has room for who does it only."""
        begun = time.monotonic()
        with self.bar(text.partition(":")[0]) as show:
            yield show
        self._done(text, begun)

    @contextmanager
    def bar(self, text: str) -> Iterator[Show]:
        """A bar that goes away."""
        from rich.progress import Progress

        with Progress(console=self.out, transient=True, disable=not self.out.is_terminal) as bar:
            task = bar.add_task(text, total=None)

            def show(step: str, done: int, total: int) -> None:
                bar.update(task, description=f"{text}: {step}", completed=done, total=total or None)

            yield show

    def _done(self, text: str, begun: float) -> None:
        self.out.print(f"[green]✓[/green] {text} ({time.monotonic() - begun:.1f} s)")


def until(ready: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise LatticeError("runtime_unreachable", f"Waited {seconds:.0f} s for {what}.")
        time.sleep(0.1)
