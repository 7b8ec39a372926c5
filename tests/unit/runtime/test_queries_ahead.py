"""How many queries a worker has at hand: enough for no core to wait, and none that another worker could take."""

from __future__ import annotations

import pytest

from lattice.runtime.worker.service import queries_ahead


@pytest.mark.parametrize(
    ("at_once", "evaluate_ms", "ahead"),
    [(1, None, 0), (1, 0, 1), (1, 10, 1), (8, 10, 8), (8, 110, 2), (1, 1000, 1), (64, 1001, 0)],
)
def test_it_depends_on_how_long_the_last_one_took(at_once: int, evaluate_ms: int | None, ahead: int) -> None:
    assert queries_ahead(at_once, evaluate_ms) == ahead
