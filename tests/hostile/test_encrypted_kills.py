"""`kill -9` of the gateway, of the worker and of the end user's process at chosen bytes of what they say to each other.

Real processes, a real program, real keys. Whatever was cut where, the same question under the same idempotency key is
answered once and rightly, or refused with a word of the catalogue; it is charged once; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from lattice.core.errors import catalogue
from tests.support.byte_proxy import Place
from tests.support.encrypted_stack import Run, Stack, encrypted_stack, right, wanted

WORK = b'"work":'
QUERY, POLL, BLOB = r"^POST /v1/encrypted-queries", r"^POST /v1/relay/worker/poll", r"^GET /v1/relay/worker/blobs/"
RESULT = r"^POST /v1/relay/worker/results"
PART, BEGIN = r"^PUT /v1/uploads/\w+/parts/", r"^POST /v1/uploads$"
COMPLETE, REGISTER = r"^POST /v1/uploads/\w+/complete", r"^POST /v1/evaluation-keys$"
DOWNLOAD = r"^GET /v1/encrypted-queries/\w+/result"


ANYWHERE = 100
"""Random bytes in the long sweep."""

POINTS_PER_STACK = 5
"""The fleet gives a worker up after as many crashes."""


class Point(NamedTuple):
    """Who dies where. Users who ask with `wait=0` poll and download; with `verify` two workers must agree."""

    victim: str
    place: Place
    poll: bool = False
    verify: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """What the end user's process is told."""
        return ("--poll",) * self.poll + ("--verify",) * self.verify

    def __str__(self) -> str:
        return f"kill the {self.victim} in the {self.place}"


def point(victim: str, route: str, side: Any, where: Any, carries: bytes = b"") -> Point:
    return Point(victim, Place(route, side, where, carries), poll=route == DOWNLOAD)


SOME = (
    point("gateway", PART, "request", "body"),
    point("client", COMPLETE, "answer", "edge"),
    point("gateway", QUERY, "request", "end"),
    point("worker", POLL, "answer", "end", WORK),
    point("gateway", RESULT, "request", "last"),
    point("worker", RESULT, "answer", "head"),
    point("client", QUERY, "answer", "body"),
)
"""One at each kind of place."""


PLACES = tuple(itertools.product(("request", "answer"), ("head", "edge", "body", "last", "end")))
BY_USERS, BY_WORKERS = (BEGIN, PART, COMPLETE, REGISTER, QUERY, DOWNLOAD), (RESULT, POLL, BLOB)


def every() -> list[Point]:
    """The whole sweep: each route in both directions, at each place, for everybody who could die there."""
    found = []
    for route, (side, where) in itertools.product(BY_USERS, PLACES):
        if route != DOWNLOAD or (side, where) == ("request", "head") or side == "answer":  # it has no body
            found += [point(victim, route, side, where) for victim in ("gateway", "client", "wire")]
    for side, where in PLACES:
        found += [point(victim, RESULT, side, where) for victim in ("gateway", "worker", "client", "wire")]
        if side == "answer":
            found += [point(victim, POLL, side, where, WORK) for victim in ("gateway", "worker", "wire")]
            found += [point(victim, BLOB, side, where) for victim in ("gateway", "worker", "wire")]
    return found


def anywhere(seed: int, count: int) -> list[Point]:
    """Somebody at any byte of anything, as the seed decides."""
    choose, found = random.Random(seed), []
    for _ in range(count):
        route = choose.choice(BY_USERS + BY_WORKERS)
        side = "answer" if route == POLL else choose.choice(("request", "answer"))
        victim = choose.choice(("gateway", "worker", "client", "wire"))
        found.append(point(victim, route, side, choose.random(), WORK if route == POLL else b""))
    return found


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with encrypted_stack(tmp_path / "stack") as stack:
        yield stack


async def kill_at(stack: Stack, point: Point, folder: Path, truth: np.ndarray) -> str:
    """One story with one death in it; what became of the question."""
    token = await stack.new_token(folder.name)
    trap = stack.set_trap(point.place, point.victim)
    asking = asyncio.create_task(stack.ask(token["secret"], folder, *point.options))
    await asyncio.wait((asking, fired := asyncio.create_task(trap.fired.wait())), return_when=asyncio.FIRST_COMPLETED)
    assert trap.fired.is_set(), f"the place was never reached: {asking.result() if asking.done() else None}"
    fired.cancel()
    stack.clear_traps()
    await stack.mend(point.victim)
    return await settled(stack, token, folder, await asking, point, truth)


async def settled(stack: Stack, token: dict[str, Any], folder: Path, run: Run, each: Point, truth: np.ndarray) -> str:
    """Ask again, as a restarted process does, until there is an end; then everything must be in order."""
    for _ in range(3):
        if run.said is not None and "values" in run.said:
            break
        assert run.said is None or run.said["error"] in catalogue(), run
        run = await stack.ask(token["secret"], folder, *each.options)
    await require_once(stack, token["id"], run.said, truth, 4 if each.verify else 2)
    await stack.require_true_books()
    await stack.require_no_leftovers()
    return str((run.said or {}).get("error", "answered"))


async def require_once(
    stack: Stack, token_id: str, said: dict[str, Any] | None, truth: np.ndarray, attempts: int
) -> None:
    """One row, one charge, at most so many attempts; the answer right, or a reason that the catalogue knows."""
    rows = await stack.queries(token_id)
    charged, _ = await stack.token_counts(token_id)
    assert len(rows) == 1, rows
    (row,) = rows
    assert row.attempt <= attempts
    assert said is not None
    if row.state == "completed":
        assert said.get("query") == row.id, said
        assert right(said["values"], truth)
        assert charged == 1
    else:
        assert (row.state, row.reason) == ("failed", said["error"]), (row, said)
        assert row.attempt == attempts
        assert charged == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_9_at_some_bytes(stack: Stack, tmp_path: Path) -> None:
    truth = wanted()
    for number, each in enumerate(SOME):
        try:
            await kill_at(stack, each, tmp_path / f"user{number}", truth)
        except BaseException as error:
            error.add_note(str(each))
            raise


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_9_while_two_opinions_are_taken(tmp_path: Path) -> None:
    """The first opinion may die with its worker or be written down: two workers agree, and it is charged once."""
    truth = wanted()
    async with encrypted_stack(tmp_path / "stack", workers=2) as stack:
        for victim, side in (("worker", "request"), ("gateway", "answer")):
            each = Point(victim, Place(RESULT, side, "last"), verify=True)
            assert await kill_at(stack, each, tmp_path / victim, truth) == "answered", each


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_kill_9_of_a_gateway_that_recovers(stack: Stack, tmp_path: Path) -> None:
    """Again and again while it starts, reads what the one before left, and starts workers: at moments of a seed."""
    choose, truth, folder = random.Random(11), wanted(), tmp_path / "user"
    token = await stack.new_token("user")
    trap = stack.set_trap(Place(RESULT, "request", "body"), "gateway")
    asking = asyncio.create_task(stack.ask(token["secret"], folder))
    await trap.fired.wait()
    stack.clear_traps()
    for _ in range(6):
        await stack.gateway.reap()
        await stack.until_no_worker()
        starting = asyncio.create_task(stack.gateway.up())
        await asyncio.sleep(choose.uniform(0.5, 4))
        os.kill(stack.gateway.pid, signal.SIGKILL)
        await asyncio.gather(starting, return_exceptions=True)
    await stack.mend("gateway")
    each = Point("gateway", trap.place)
    assert await settled(stack, token, folder, await asking, each, truth) in ("answered", "runtime_failed")


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.skipif("LATTICE_TEST_KILL_SEED" not in os.environ, reason="LATTICE_TEST_KILL_SEED starts the long sweep")
async def test_kill_9_at_every_kind_of_byte(tmp_path: Path) -> None:
    """All places in the order that the seed decides, on a fresh stack for every few; all failures are told together."""
    truth, seed = wanted(), int(os.environ["LATTICE_TEST_KILL_SEED"])
    points = every() + anywhere(seed, ANYWHERE)
    random.Random(seed).shuffle(points)
    left = list(enumerate(points))[: int(os.environ.get("LATTICE_TEST_KILL_POINTS", len(points)))]
    wrong: list[str] = []
    while left:
        number = left[0][0]
        async with encrypted_stack(tmp_path / f"stack{number}") as stack:
            left, found = await some_points(stack, left, tmp_path, truth)
            wrong += found
    assert wrong == []


async def some_points(
    stack: Stack, points: list[tuple[int, Point]], folder: Path, truth: np.ndarray
) -> tuple[list[tuple[int, Point]], list[str]]:
    """A few of them, and none after one that went wrong; what is left, and what went wrong."""
    for done, (number, each) in enumerate(points[:POINTS_PER_STACK], 1):
        try:
            async with asyncio.timeout(120):
                ended = await kill_at(stack, each, folder / f"user{number}", truth)
        except (AssertionError, TimeoutError) as error:
            wrong = "".join(traceback.format_exception(error, limit=-2))
            print(f"{number:3} {each}: WRONG {wrong}", flush=True)
            return points[done:], [f"{number} {each}: {wrong}"]
        print(f"{number:3} {each}: {ended}", flush=True)
    return points[POINTS_PER_STACK:], []
