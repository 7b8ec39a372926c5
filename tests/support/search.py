"""A search in rows that users encrypt, deployed for real: what the tests of databases and of devices ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattice.client.management import ManagementClient
from lattice.core.errors import LatticeError
from lattice.fhe import artefact
from lattice.fhe.compiler.packing.similarity import compile_encrypted_similarity
from lattice.sealing.identity import IdentityKey
from tests.harness import LiveGateway

NAME, ROWS, WIDTH, BEST = "search", 300, 16, 5
RNG = np.random.default_rng(11)
VECTORS = RNG.normal(size=(ROWS, WIDTH)) * RNG.uniform(0.1, 10, size=(ROWS, 1))
OTHERS = RNG.normal(size=(ROWS, WIDTH))
CLEAR = 0.004
"""How far apart scores must be for the order to be certain: eight times the error of an encrypted one."""


def scores(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Cosines, in the clear."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(queries @ unit.T / np.linalg.norm(queries, axis=1, keepdims=True))


def nearest(rows: np.ndarray, queries: np.ndarray) -> list[list[int]]:
    """The best rows' numbers, best first."""
    order: list[list[int]] = np.argsort(-scores(rows, queries), axis=1)[:, :BEST].tolist()
    return order


def _questions(count: int) -> np.ndarray:
    """Rows with a little noise, about which both tables are of one mind."""
    asked = VECTORS + 0.05 * RNG.normal(size=VECTORS.shape)
    best = [-np.sort(-scores(rows, asked), axis=1)[:, : BEST + 1] for rows in (VECTORS, OTHERS)]
    clear = np.all([np.diff(each, axis=1).max(axis=1) < -CLEAR for each in best], axis=0)
    return np.asarray(asked[clear][:count])


QUESTIONS = _questions(4)


def save_search(folder: Path) -> Path:
    """The model's file. The provider knows sizes alone."""
    path = folder / "search.lattice"
    artefact.save(compile_encrypted_similarity(ROWS, WIDTH, best=BEST).compiled, path, IdentityKey.generate())
    return path


@contextmanager
def deployed_search(live: LiveGateway, path: Path) -> Iterator[tuple[ManagementClient, str, str]]:
    """The provider, and the tokens of alice and of eve; a worker runs inside of the block. Blocks its thread."""
    with ManagementClient(live.url, live.secret) as provider:
        provider.create_encrypted_model(NAME, weights_exposure="hosted")
        provider.wait_ready(NAME, provider.upload_model(NAME, path)["version"], timeout_s=60)
        provider.grant_credits(provider.key()["account"], 50_000_000, "test")
        alice, eve = (provider.tokens.create(NAME, user, user=user)["secret"] for user in ("alice", "eve"))
        with provider.workers.running(NAME):
            yield provider, alice, eve


def refused(code: str, call: Callable[[], Any]) -> LatticeError:
    """The error, which must have that code."""
    with pytest.raises(LatticeError) as caught:
        call()
    assert caught.value.code == code
    return caught.value
