"""An end user's process that may be killed anywhere: `python -m tests.support.encrypted_asker URL FOLDER [--poll]`.

Started again in the same folder it goes on: the same keys, the same ciphertexts, the same idempotency key. It prints
one JSON object: the values and the query's id, or the code of the error. `--poll` asks with `wait=0`, `--verify` for
two workers' opinions; `--stay` waits, with its secret in memory, until standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lattice.client.encrypted.query import QueryClient
from lattice.client.encrypted.results import EncryptedQuery
from lattice.core.errors import LatticeError

SAMPLES = np.array([[0.5, -0.25, 0.125, 1.0], [1.0, 0.0, 0.5, -1.0]])
IDEMPOTENCY_KEY = "asker-canary-key"


def question(client: QueryClient, folder: Path) -> EncryptedQuery:
    """The ciphertexts, durable before they are sent: encrypting again would be another question."""
    path = folder / "question"
    if not path.exists():
        made = client.encrypt(SAMPLES)
        new = folder / "question.new"
        new.write_bytes(made.data)
        os.replace(new, path)
    return EncryptedQuery(path.read_bytes(), len(SAMPLES))


def ask(url: str, folder: Path, wait: bool, stay: bool, verify: int) -> dict[str, Any]:
    """Keys, question, answer."""
    with QueryClient(base_url=url, folder=folder, timeout_s=60) as client:
        client.keys.ensure()
        asked = question(client, folder)
        plan = client._session.execute(asked, idempotency_key=IDEMPOTENCY_KEY, wait=wait, verify=verify)
        result = client._driver.run(plan)
        answer = client.decrypt(result)
        found = {"values": answer.values.tolist(), "query": result.query_id}
        if stay:
            print(json.dumps(found), flush=True)
            sys.stdin.read()
        return found


def main() -> None:
    """One run."""
    url, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = ask(url, folder, "--poll" not in sys.argv, "--stay" in sys.argv, 1 + ("--verify" in sys.argv))
    except LatticeError as error:
        found = {"error": error.code, "message": error.message}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
