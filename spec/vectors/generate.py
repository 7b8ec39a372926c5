"""Writes the test vectors of `spec/sealed-work.md`: `PYTHONPATH=src:. python -m spec.vectors.generate`.

Every key, salt and time is fixed, so a second run writes the same files. The one exception is HPKE encapsulation, which
the library randomises: encapsulations that are already stored are kept, and made anew only where none fits.
Tests run `build()` too and compare, so a change of any byte layout shows up as a changed vector.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from spec.vectors.fixed import (
    RUNTIME,
    Json,
    issued,
)
from spec.vectors.replies import records, replies
from spec.vectors.sealed import Encapsulations, envelopes, request_frames
from spec.vectors.signed import identities, key_configs, pairings, receipts

from lattice.core.ids import unb64url
from lattice.sealing.envelope import Envelope, open_request
from lattice.sealing.suites import Suite

HERE = Path(__file__).parent


def build(stored: dict[str, str]) -> dict[str, Json]:
    """Every vector file's content, by name. `stored` are the encapsulations of an earlier run."""
    makers: dict[str, Callable[[], Json]] = {
        "identity": identities,
        "key_config": key_configs,
        "envelope": lambda: envelopes(Encapsulations(stored)),
        "request_frames": request_frames,
        "reply": replies,
        "receipt": receipts,
        "stream": records,
        "pairing": pairings,
    }
    vectors = {name: maker() for name, maker in makers.items()}
    for row in vectors["envelope"]["positive"]:  # nothing is published that does not open
        pair = issued(Suite(row["suite"]))[1]
        assert open_request(Envelope.decode(unb64url(row["encoded"])), pair, RUNTIME).body == unb64url(row["body"])
    return vectors


def load_stored() -> dict[str, str]:
    """The encapsulations of the committed file, if there is one."""
    path = HERE / "envelope.json"
    return json.loads(path.read_text("utf-8"))["encapsulations"] if path.exists() else {}


def main() -> None:
    """Write all files beside this script."""
    for name, content in build(load_stored()).items():
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (HERE / f"{name}.json").write_text(text, "utf-8")
        sys.stdout.write(f"{name}.json {len(text)} bytes\n")


if __name__ == "__main__":
    main()


if __name__ == "__main__":
    main()
