"""How many workers a model gets, whatever its settings hold."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from lattice.gateway.workers.scaling import MAX_WORKERS, Scaling, may_idle_out, read_scaling, wanted_workers


@pytest.mark.parametrize(
    ("settings", "running", "queued", "wanted"),
    [
        ({}, 0, 100, 0),  # started by hand alone
        ({}, 3, 0, 3),
        ({"min_workers": 2}, 0, 0, 2),
        ({"autostart": True}, 0, 0, 0),
        ({"autostart": True}, 0, 1, 1),
        ({"autostart": True}, 0, 100, 1),
        ({"autostart": True, "max_workers": 4}, 1, 17, 3),
        ({"autostart": True, "max_workers": 4}, 4, 1, 4),
        ({"autostart": True, "max_workers": 10_000}, 0, 10**9, MAX_WORKERS),
    ],
)
def test_wanted_workers(settings: dict[str, int], running: int, queued: int, wanted: int) -> None:
    assert wanted_workers(Scaling(**settings), running, queued) == wanted  # type: ignore[arg-type]


@given(st.text(max_size=50))
def test_settings_that_cannot_be_read_count_as_not_set(text: str) -> None:
    assert isinstance(read_scaling(text), Scaling)


def test_settings_of_the_api_are_understood() -> None:
    assert read_scaling('{"idle_seconds": null, "hardware_class": null, "unknown": 1}') == Scaling()


def test_only_idle_workers_beyond_the_least_number_stop() -> None:
    scaling = Scaling(idle_seconds=10, min_workers=1)
    assert may_idle_out(scaling, 2, 10_000)
    assert not may_idle_out(scaling, 1, 10_000)
    assert not may_idle_out(scaling, 2, 9_999)
    assert not may_idle_out(Scaling(), 2, 10**9)
