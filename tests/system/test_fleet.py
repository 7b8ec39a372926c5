"""The fleet of local processes: real children that crash, die with their parent, start by themselves and idle out."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lattice.gateway.workers import fleet as fleet_module
from lattice.gateway.workers.drivers import CREDENTIAL, LocalProcesses
from tests.callers import fund
from tests.harness import LiveGateway, RelayRefused
from tests.support.echo_worker import Deployed, EchoWorker

ORPHAN = """
import asyncio, sys
from pathlib import Path
from lattice.gateway.workers.drivers import Launch, LocalProcesses

async def main():
    driver = LocalProcesses(Path(sys.argv[1]))
    launch = Launch(worker_id="wkr_x", credential="rlc_x", gateway="http://127.0.0.1:9", cores=1, memory_mib=64)
    await driver.start(launch, lambda worker: None)
    print(driver._children["wkr_x"].pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
async def deployed(live: LiveGateway) -> Deployed:
    await fund(live, 10_000_000)
    return await Deployed(live).deploy()


async def states(deployed: Deployed, until: Any) -> list[dict[str, Any]]:
    async with asyncio.timeout(20):
        while True:
            path = f"/v1/encrypted-models/{deployed.model}/workers"
            found: list[dict[str, Any]] = (await deployed.live.call("GET", path))[1]["data"]
            if until(found):
                return found
            await asyncio.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.slow
async def test_a_real_worker_dies_with_its_killed_parent(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHAN, str(tmp_path), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    log = tmp_path / "wkr_x.log"
    async with asyncio.timeout(20):
        while "worker.gateway_unreachable" not in log.read_text():
            await asyncio.sleep(0.05)
    assert alive(pid)
    assert "rlc_x" not in Path(f"/proc/{pid}/cmdline").read_text()
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    async with asyncio.timeout(5):
        while alive(pid):
            await asyncio.sleep(0.02)
    assert "rlc_x" not in log.read_text()


async def test_a_worker_that_crashes_is_started_again_but_not_for_ever(
    deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process has a credential of its own; nothing is billed, since none was ever active."""
    monkeypatch.setattr(fleet_module, "FIRST_BACKOFF_SECONDS", 0.01)
    seen = tmp_path / "seen"
    crash = f"import os; open({str(seen)!r}, 'a').write(os.environ[{CREDENTIAL!r}] + chr(10)); os._exit(7)"
    deployed.live.gateway.workers.fleet._driver = LocalProcesses(tmp_path / "workers", ("-c", crash))
    await deployed.start("small")
    (ended,) = await states(deployed, lambda found: found[0]["state"] == "stopped")
    assert (ended["reason"], ended["restarts"], ended["billed_micro"]) == ("failed", fleet_module.MAX_RESTARTS, 0)
    credentials = seen.read_text().split()
    assert len(credentials) == len(set(credentials)) == fleet_module.MAX_RESTARTS + 1
    assert (await deployed.live.audit()).held_micro == 0


class Recorded:
    """A driver that only remembers."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.stopped: list[str] = []

    async def start(self, launch: Any, on_exit: Any) -> None:
        self.started.append(launch)

    async def stop(self, worker_id: str) -> None:
        self.stopped.append(worker_id)

    def alive(self, worker_id: str) -> bool:
        return True

    async def resume(self) -> None:
        return

    async def close(self) -> None:
        return


async def test_the_first_query_starts_a_worker_and_a_long_queue_more(live: LiveGateway) -> None:
    await fund(live, 10_000_000)
    deployed = await Deployed(live).deploy(autostart=True, max_workers=2, hardware_class="small", idle_seconds=10)
    driver = live.gateway.workers.fleet._driver = Recorded()
    first = await deployed.submit()
    await states(deployed, lambda found: len(found) == 1)
    for _ in range(9):
        await deployed.submit()
    await states(deployed, lambda found: len(found) == 2)
    await asyncio.sleep(1.2)
    assert len(driver.started) == 2
    worker = EchoWorker(live, driver.started[0].worker_id, driver.started[0].credential)
    await worker.activate()
    while (await deployed.read(first["id"]))["state"] != "completed":
        await worker.answer(await worker.take())


async def test_a_worker_without_work_idles_out(live: LiveGateway) -> None:
    deployed = await Deployed(live).deploy(idle_seconds=10)
    worker = await deployed.worker()
    live.gateway.workers.service.links[worker.id].busy_ms -= 10_000
    async with asyncio.timeout(10):
        while worker.stop is None:
            await worker.poll()
    assert worker.stop == "idle"
    await worker.poll(ending=True)
    assert (await live.call("GET", f"/v1/workers/{worker.id}"))[1]["reason"] == "idle"


async def test_a_repeated_start_starts_once(deployed: Deployed) -> None:
    driver = deployed.live.gateway.workers.fleet._driver = Recorded()
    path, headers = f"/v1/encrypted-models/{deployed.model}/workers", {"idempotency-key": "s"}
    answers = [await deployed.live.call("POST", path, {"hardware_class": "small"}, headers=headers) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0][0] == 201
    assert len(driver.started) == 1


async def test_the_goodbye_of_a_last_life_does_not_end_the_worker_that_is_started_again(deployed: Deployed) -> None:
    """A pod survives its gateway. Told to end by the next one, it says so with a credential that is void by then."""
    fleet = deployed.live.gateway.workers.fleet
    first = fleet._driver = Recorded()
    (made,) = await deployed.start("small")
    worker = EchoWorker(deployed.live, made["id"], first.started[0].credential)
    await worker.activate()

    class Left(Recorded):
        async def resume(self) -> None:
            with pytest.raises(RelayRefused, match="invalid_credential"):
                await worker.poll(ending=True)

    later = fleet._driver = Left()
    fleet._launched.clear()
    await fleet.resume()
    row = (await deployed.live.call("GET", f"/v1/workers/{made['id']}"))[1]
    assert (row["state"], row["restarts"], [launch.worker_id for launch in later.started]) == (
        "starting",
        1,
        [worker.id],
    )
