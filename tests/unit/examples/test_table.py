"""The table of encrypted models: a target that was missed is said, and the page takes rows with and without a peer."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.encrypted_models import findings, missed, table
from benchmarks.whole_sets import recall
from scripts.write_benchmarks import _models

ROW: dict[str, Any] = {
    "title": "a model",
    "ours_ms": 10.0,
    "encrypt_ms": 1.0,
    "decrypt_ms": 0.5,
    "rows": 1,
    "rows_per_second": 100,
    "key_bytes": 9_000_000,
    "ciphertext_bytes": 150_000,
    "weight_bytes": 1_000_000,
    "max_error": 1e-3,
    "accuracy": 0.99,
    "plain_accuracy": 0.99,
    "log_qp": 200.0,
    "log_qp_bound": 214,
    "security_bits": 128,
    "target": {"ms": 20, "key_bytes": 12e6, "error": None, "rows_per_second": None},
    "peer": None,
    "peer_ms": None,
}
PEER = {"peer": "Other", "peer_ms": 300.0, "peer_key_bytes": 90_000_000, "peer_ciphertext_bytes": 1_000_000}


def test_what_is_missed_is_said() -> None:
    assert not missed(ROW)
    assert missed({**ROW, "ours_ms": 21.0}) == ["21.00 ms, not 20"]
    assert missed({**ROW, "key_bytes": 13_000_000}) == ["13.0 MB of keys, not 12"]
    assert missed({**ROW, "accuracy": 0.98}) == ["accuracy 0.9800, in the clear 0.9900"]
    assert missed({**ROW, "security_bits": 0}) == ["less than 128 bits of security"]


def test_peers_stand_beside() -> None:
    rows = [ROW, {**ROW, **PEER, "peer_max_error": 0.1}]
    assert findings(rows) == ["a model: 30.0× faster than Other, 10.0× fewer key bytes"]
    assert len(table(rows).splitlines()) == 3
    page = _models({"rows": rows, "findings": findings(rows)})
    assert "| a model | 10.00 | 1.00 / 0.50 | Other | 300.0 | 30.0 | 9.0 / 90.0 | 150 / 1000 |" in page
    assert "| a model | 10.00 | 1.00 / 0.50 |  |  |  | 9.0 | 150 |" in page


def test_recall_counts_the_nearest_rows_that_were_kept() -> None:
    clear = np.arange(4000.0).reshape(2, 2000)
    swapped = clear.copy()
    swapped[0, :3] = 1e6  # three rows that are not near take the places of three that are
    assert recall(clear, clear) == {"recall_at_10": 1.0}
    assert recall(swapped, clear) == {"recall_at_10": 0.85}
    assert recall(clear[:, :10], clear[:, :10]) == {}
