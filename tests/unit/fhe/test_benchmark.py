"""The benchmark's own arithmetic: work counted, targets judged, tables printed; no time is measured here."""

from __future__ import annotations

from typing import Any

from benchmarks import fhe_floor as floor
from benchmarks.fhe_primitives import findings, markdown, table

from lattice.fhe.ckks.presets import preset


def row(**changes: Any) -> dict[str, Any]:
    base = {
        "name": "rotation",
        "n": 1 << 15,
        "limbs": "16+3",
        "threads": 1,
        "ours_ms": 10.0,
        "peer": "Lattigo 6.2",
        "peer_ms": 50.0,
        "ratio": 5.0,
        "target": 4.0,
        "floor_ms": 5.0,
        "floor_by": "butterflies",
        "times_floor": 2.0,
        "key_bytes": 36,
        "peer_key_bytes": 100,
        "error": 1e-9,
    }
    return base | changes


def test_findings_judge_targets() -> None:
    rows = [
        row(),
        row(threads=2, ours_ms=6.0, peer=None, peer_ms=None, ratio=None, target=None),
        row(name="hoisted rotation, each of 8", ours_ms=5.0, target=None),
        row(name="rotation key generation", ratio=0.9, target=1.0),
    ]
    said = "\n".join(findings(rows))
    assert "50% of a full one" in said
    assert "36% of Lattigo's bytes" in said
    assert "two cores 1.67× one" in said
    assert "MISSED rotation key generation" in said
    assert "MISSED rotation N" not in said
    assert len(table(rows).splitlines()) == 5
    report = {
        "machine": {"cpu": "abacus", "cores": 2, "load_before": 0.0},
        "rows": rows,
        "findings": [],
        "left_out": [],
    }
    assert "| rotation | 2^15 | 16+3 | 1 | 10.000 | Lattigo | 50.00 | 5.0 | 4 | 2.0 b | 0.0 | 1.0e-09 |" in markdown(
        report
    )


def test_the_floor_counts_what_a_key_switch_must_do() -> None:
    """Seven limbs and two special primes in four digits: 7 inverse, 4·9 − 7 forward, and a ModDown of 2·9."""
    params = preset("deep-16384")
    context = params.key_switch_context(6, 6)
    one = floor.transforms(params.n, 1).butterflies
    assert one == 8192 * 14
    assert floor.rotation(context).butterflies == one * (7 + 4 * 9 - 7 + 2 * 9)
    assert floor.hoisted(context, 8).butterflies < floor.rotation(context).butterflies / 2
    machine = floor.Machine(0.1, 40.0)
    assert machine.floor_ms(floor.Work(10**7, 0)) == (1.0, "butterflies")
    assert machine.floor_ms(floor.Work(0, 4 * 10**7)) == (1.0, "bytes")
