"""How many workers a model gets, whatever its settings hold."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from lattice.gateway.workers.scaling import MAX_WORKERS, Place, Scaling, may_idle_out, read_scaling, wanted_starts


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
    starts = wanted_starts(Scaling(**settings), [Place(1)] * running, {1: queued}, 1)  # type: ignore[arg-type]
    assert running + starts.get(1, 0) == wanted


AUTO = Scaling(autostart=True, max_workers=4)


@pytest.mark.parametrize(
    ("running", "queued", "starts"),
    [
        ([], {1: 1, 2: 1}, {2: 1, 1: 1}),  # an old queue that nobody serves gets its own worker
        (
            [Place(1)],
            {1: 100, 2: 1},
            {},
        ),  # an old one that somebody serves gets no more; that worker goes on to the new
        ([Place(1)], {2: 9}, {2: 1}),
        ([Place(1, failed=2)], {2: 9}, {2: 2}),  # it will never serve the new version
        ([Place(2)], {1: 1}, {1: 1}),
        ([Place(1)] * 4, {2: 1000}, {}),  # all together never more than the settings allow
        ([Place(1)] * 3, {2: 1000}, {2: 1}),
    ],
)
def test_queues_are_counted_by_version(running: list[Place], queued: dict[int, int], starts: dict[int, int]) -> None:
    assert wanted_starts(AUTO, running, queued, 2) == starts


def test_workers_that_failed_to_load_a_version_still_count_as_the_least_number() -> None:
    assert wanted_starts(Scaling(min_workers=1, max_workers=3), [Place(1, failed=2)], {}, 2) == {}


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
