"""The platform's section of docs/benchmarks.md, and what counts as missed."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.platform import findings
from scripts.write_benchmarks import _platform

SPREAD = {"p50_ms": 9.0, "p95_ms": 12.0}


def report() -> dict[str, Any]:
    row = {
        "model": "MNIST LeNet",
        "worker_cores": 1,
        "shared_core": False,
        "users": 2,
        "seconds": 8.0,
        "queries": 70,
        "queries_per_second": 8.75,
        "evaluating": 0.96,
        "useful": 0.93,
        "worker_cpu": 0.99,
        "gateway_cpu": 0.1,
        "users_cpu": 0.05,
        "total": SPREAD,
    }
    return {
        "queries": {
            "model": "MNIST MLP",
            "queries": 200,
            "wrong": 0,
            "gateway_cpu_ms": 5.0,
            "server_timing": {"body": SPREAD},
            **dict.fromkeys(("total", "encrypt", "evaluate", "decrypt", "overhead"), SPREAD),
        },
        "concurrency": [row, {**row, "worker_cores": 2, "shared_core": True, "evaluating": 0.5}],
        "keys": {
            "megabytes": 320.6,
            "make_s": 0.5,
            "upload_s": 0.8,
            "upload_mb_per_second": 400.0,
            "check_s": 1.0,
            "check_mib": 38.0,
            "gateway_resident_mib": 110.0,
            "gateway_above_mib": 3.0,
        },
        "import": {"name": "import QueryClient", "seconds": 0.15},
    }


def test_nothing_is_missed_where_every_figure_is_within_its_target() -> None:
    assert findings(report()) == []


@pytest.mark.parametrize(
    ("part", "name", "value", "word"),
    [
        ("queries", "overhead", {"p50_ms": 15.1, "p95_ms": 20.0}, "overhead"),
        ("queries", "wrong", 1, "wrong"),
        ("keys", "upload_mb_per_second", 299.9, "MB/s"),
        ("keys", "gateway_above_mib", 100.0, "MiB"),
        ("import", "seconds", 0.3, "import"),
    ],
)
def test_what_is_past_its_target_is_said(part: str, name: str, value: Any, word: str) -> None:
    found = report()
    found[part][name] = value
    (said,) = findings(found)
    assert said.startswith("MISSED")
    assert word in said or word == "wrong"


def test_workers_that_share_their_core_are_not_what_the_target_is_about() -> None:
    found = report()
    found["concurrency"][0]["evaluating"] = 0.89
    found["concurrency"][1]["evaluating"] = 0.99
    assert len(findings(found)) == 1


def test_the_page_has_every_row() -> None:
    found = report()
    text = "\n".join(_platform({**found, "findings": []}))
    assert "| overhead | 9.0 | 12.0 |" in text
    assert "| `body` | 9.0 | 12.0 |" in text
    assert "| MNIST LeNet | 1 | 2 | 8.8 | 96% | 93% | 0.99 | 0.10 | 0.05 | 9 | 12 |" in text
    assert "one shares its core" in text
    assert "400 MB/s" in text
    assert "Every target" in text
    said = "\n".join(_platform({**found, "findings": ["MISSED something"]}))
    assert "- MISSED something" in said
    assert "Every target" not in said
