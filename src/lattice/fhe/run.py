"""A compiled model in use. The split pieces, for a client and an evaluator that never meet, and `run`, which is both.

```python
keys = client_keys(compiled)                                             # client, once
query = encrypt(compiled.client, compiled.params, keys.secret, samples)  # client
prepared = prepare(compiled)                                             # evaluator, once
blinding = Blinding(provider_secret, request)                            # evaluator
results = evaluate(prepared, keys.evaluation, keys.public, query, blinding)
answer = decrypt(compiled.client, compiled.params, keys.secret, results)  # client
```
"""

from __future__ import annotations

import os
import warnings

from numpy.typing import ArrayLike

from lattice.fhe.answers import Answer, OutOfRangeWarning, checked_samples, joined
from lattice.fhe.blinding import Blinding, request_hash
from lattice.fhe.cancel import Cancel
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.client_side import ClientFacing, ClientKeys, client_keys, decrypt, encrypt
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.server_side import Prepared, evaluate, prepare

__all__ = [
    "Answer",
    "Blinding",
    "Cancel",
    "ClientFacing",
    "ClientKeys",
    "OutOfRangeWarning",
    "Prepared",
    "Session",
    "client_keys",
    "decrypt",
    "encrypt",
    "evaluate",
    "prepare",
    "request_hash",
    "run",
]


class Session:
    """Client and evaluator in one process, for development: keys and encoded weights are made once."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.keys = client_keys(compiled)
        self.prepared = prepare(compiled)
        self._provider_secret = os.urandom(32)

    def query(self, samples: ArrayLike, *, strict: bool = False, cancel: Cancel | None = None) -> list[Ciphertext]:
        """Encrypt at most one batch and evaluate it: the blinded outputs."""
        sent = encrypt(self.compiled.client, self.compiled.params, self.keys.secret, samples, strict=strict)
        blinding = Blinding(self._provider_secret, self.compiled.program.digest)  # `evaluate` binds all the rest
        return evaluate(self.prepared, self.keys.evaluation, self.keys.public, sent, blinding, cancel)

    def run(self, samples: ArrayLike, *, strict: bool = False, cancel: Cancel | None = None) -> Answer:
        """Any number of samples, a batch at a time."""
        part = self.compiled.client
        array = checked_samples(part, samples, strict=strict)
        answers = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfRangeWarning)  # said once, just now
            for start in range(0, len(array), part.batch):
                chunk = array[start : start + part.batch]
                results = self.query(chunk, cancel=cancel)
                answers.append(decrypt(part, self.compiled.params, self.keys.secret, results, len(chunk)))
        return joined(answers)


def run(compiled: Compiled, samples: ArrayLike, *, strict: bool = False) -> Answer:
    """All of it in one process, with keys made for this call."""
    session = Session(compiled)
    with session.keys.secret:
        return session.run(samples, strict=strict)
