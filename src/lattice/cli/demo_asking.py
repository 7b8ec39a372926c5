"""The demo's end user: one encrypted digit after the other, each step timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Any

from lattice.cli import demo_digits
from lattice.core.errors import LatticeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lattice.client.encrypted.query import QueryClient

PAUSE_S = 0.2
"""Between questions while the credits run out."""
OVER = {"credits_exhausted", "worker_unavailable"}
"""What a question gets when the credits have run out: the first if it was queued by then."""


@dataclass(frozen=True)
class Asked:
    """One digit and its answer; times in milliseconds, sizes in bytes of ciphertext.

    `evaluate` is the worker's signed word, in whole milliseconds; `round_trip` has it, the gateway and the network.
    """

    prediction: int
    truth: int
    values: NDArray[Any]
    encrypt: float
    evaluate: float
    decrypt: float
    round_trip: float
    sent: int
    received: int


def ask(user: QueryClient, image: Any, truth: int) -> Asked:
    """One question in its three steps."""
    ticks = [time.perf_counter()]
    query = user.encrypt(image[None])
    ticks.append(time.perf_counter())
    result = user.execute(query)
    ticks.append(time.perf_counter())
    answer = user.decrypt(result)
    ticks.append(time.perf_counter())
    encrypt, execute, decrypt = (1e3 * (after - before) for before, after in pairwise(ticks))
    assert answer.labels is not None
    return Asked(
        prediction=int(answer.labels[0]),
        truth=truth,
        values=answer.values[0],
        encrypt=encrypt,
        evaluate=float(result.receipt.milliseconds),
        decrypt=decrypt,
        round_trip=execute,
        sent=len(query.data),
        received=len(result.data),
    )


class Questions:
    """Asks on, round and round, until it is refused because the credits are over; `refused_with` is that error."""

    def __init__(self, user: QueryClient, patience_s: float) -> None:
        self._user = user
        self._deadline = time.monotonic() + patience_s
        self.refused_with = ""

    def __iter__(self) -> Iterator[Asked]:
        digits = demo_digits.read("digits")
        for image, label in cycle(zip(digits.x, digits.y, strict=True)):
            try:
                yield ask(self._user, image, int(label))
            except LatticeError as error:
                if error.code not in OVER:
                    raise
                self.refused_with = error.code
                return
            if time.monotonic() > self._deadline:
                raise LatticeError("internal", "The worker still runs, long after its credits should be over.")
            time.sleep(PAUSE_S)


def in_the_clear(images: Any) -> NDArray[Any]:
    """The model's scores by onnx's own evaluator: nothing of ours is in it."""
    import numpy as np
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(demo_digits.FOLDER / "model.onnx"))
    scores: Any = evaluator.run(None, {"input": images})
    return np.asarray(scores[0])
