"""Every fleet driver starts, watches and ends workers alike: local processes, pods on an API server for tests, and pods
on a real API server where LATTICE_TEST_KUBECONFIG names one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest

from lattice.gateway.workers import drivers, manifests
from tests.support.fleet_worlds import CRASH, KINDS, STEADY, STUBBORN, World, open_world, running, until

Open = Callable[[str], AbstractAsyncContextManager[World]]


@pytest.fixture(params=KINDS)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[str], object]]:
    """Opens the world of a driver with a program."""
    async with AsyncExitStack() as stack:

        async def enter(program: str) -> World:
            return await stack.enter_async_context(open_world(request.param, tmp_path, program))

        yield enter


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "KILL_SECONDS", 0.2)
    monkeypatch.setattr(manifests, "GRACE_SECONDS", 1)


async def test_a_worker_lives_until_it_is_stopped_and_its_exit_is_told_once(opened: Open) -> None:
    world = await opened(STEADY)
    assert not world.driver.alive("wkr_1")
    await world.start()
    (report,) = await world.reported(1)
    assert world.driver.alive("wkr_1")
    assert world.exits == []
    await world.driver.stop("wkr_1")
    await until(lambda: world.exits)
    assert not world.driver.alive("wkr_1")
    assert not running(report["pid"])
    await world.driver.stop("wkr_1")
    await world.driver.close()
    await asyncio.sleep(0.3)
    assert world.exits == ["wkr_1"]


async def test_a_crash_is_told_and_the_worker_starts_again_with_another_credential(opened: Open) -> None:
    world = await opened(CRASH)
    await world.start()
    await until(lambda: world.exits == ["wkr_1"])
    assert not world.driver.alive("wkr_1")
    await world.start(credential="rlc_canary-two")
    await until(lambda: world.exits == ["wkr_1", "wkr_1"])
    assert [report["credential"] for report in world.reports()] == ["rlc_canary-one", "rlc_canary-two"]


async def test_the_credential_reaches_the_worker_and_nobody_else(opened: Open) -> None:
    world = await opened(STEADY)
    await world.start()
    (report,) = await world.reported(1)
    assert report["credential"] == "rlc_canary-one"
    assert "--gateway" in report["argv"]
    assert "--gateway" in await world.public()
    assert "canary" not in await world.public()
    assert "canary" not in repr(world.launch())


async def test_one_that_ignores_the_signal_is_killed(opened: Open) -> None:
    world = await opened(STUBBORN)
    await world.start()
    (report,) = await world.reported(1)
    await world.driver.stop("wkr_1")
    await until(lambda: world.exits == ["wkr_1"])
    assert not running(report["pid"])


async def test_workers_do_not_disturb_each_other_and_close_ends_them_all(opened: Open) -> None:
    world = await opened(STEADY)
    for number in range(3):
        await world.start(f"wkr_{number}", f"rlc_{number}")
    reports = {report["credential"]: report["pid"] for report in await world.reported(3)}
    await world.driver.stop("wkr_1")
    await until(lambda: world.exits == ["wkr_1"])
    assert [world.driver.alive(f"wkr_{number}") for number in range(3)] == [True, False, True]
    assert running(reports["rlc_0"])
    await world.driver.close()
    await until(lambda: not any(running(pid) for pid in reports.values()))


async def test_what_cannot_be_started_says_so_and_has_no_exit(opened: Open) -> None:
    world = await opened(STEADY)
    await world.refuse()
    with pytest.raises(OSError) as caught:
        await world.start()
    assert "canary" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert not world.driver.alive("wkr_1")
    await world.driver.stop("wkr_1")
    await asyncio.sleep(0.1)
    assert world.exits == []
    assert world.reports() == []
