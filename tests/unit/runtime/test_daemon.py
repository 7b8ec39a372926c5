"""The assembled daemon in one process: real gateway protocol, real HTTP, a scripted engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lattice.core.errors import LatticeError
from lattice.core.relay import ModelOffer
from lattice.runtime import daemon as module
from lattice.runtime import transport as transport_module
from lattice.runtime.control import fetch_status, read_endpoint
from lattice.runtime.daemon import Daemon
from lattice.runtime.machine import PAIRING_FILE, Pairing, save_pairing
from lattice.runtime.settings import DaemonSettings, EngineSettings, LocalApiSettings
from lattice.runtime.state import StateDir
from tests.unit.runtime.machines import RUNTIME, FakeEngine, Machine
from tests.unit.runtime.servers import RelayGateway


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAIRING_WATCH_S", 0.02)
    monkeypatch.setattr(module, "_ENGINE_RETRY_S", 0.02)
    monkeypatch.setattr(module, "_ENGINE_REFRESH_S", 0.05)
    monkeypatch.setattr(transport_module, "BACKOFF_CAP_S", 0.05)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "state", FakeEngine())


def settings(state: StateDir, **local: Any) -> DaemonSettings:
    return DaemonSettings(
        state_dir=state.root,
        engine=EngineSettings(concurrency=2),
        local_api=LocalApiSettings(**{"port": 0, **local}),
    )


def pairing(url: str, credential: str = "rlc_x") -> Pairing:
    return Pairing(RUNTIME, url, url, credential, "key", 1, True)


@contextlib.asynccontextmanager
async def running(machine: Machine, engine: FakeEngine, **local: Any) -> AsyncIterator[Daemon]:
    daemon = Daemon(settings(machine.state, **local), engine=engine, clock=machine.clock)
    task = asyncio.create_task(daemon.run())
    ready = asyncio.create_task(daemon.ready.wait())
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        await task
    try:
        yield daemon
    finally:
        daemon.stop()
        daemon.stop()
        await asyncio.wait_for(task, 10)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_paired_daemon_answers_and_cleans_up(machine: Machine) -> None:
    gateway, engine = RelayGateway(), FakeEngine()
    async with gateway.run() as url:
        save_pairing(machine.state, pairing(url))
        async with running(machine, engine) as daemon:
            sealed = machine.seal()
            gateway.hand_over(machine.lease(sealed))
            work_id = sealed.envelope.parsed.work_id
            await gateway.until(lambda: gateway.finished(work_id))
            machine.open(sealed, gateway.frames_of(work_id))
            assert gateway.announcements[0].models == engine.offered
            report = await asyncio.to_thread(fetch_status, machine.state)
            assert report["pairing"]["runtime"] == RUNTIME
            assert report["engine"]["state"] == "ready"
            assert report["relay"]["work"]["completed"] == 1
            assert "rlc_x" not in json.dumps(report)
            assert daemon.endpoint == read_endpoint(machine.state)
    assert any(poll.draining for poll in gateway.polls)
    assert read_endpoint(machine.state) is None
    assert engine.stopped == 1
    assert not machine.state.locked()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in machine.state.root.iterdir()}
    assert modes == {0o600}


async def test_pairing_while_it_runs_connects_and_pairing_anew_reconnects(machine: Machine) -> None:
    first, second = RelayGateway(), RelayGateway()
    async with first.run() as first_url, second.run() as second_url, running(machine, FakeEngine()) as daemon:
        assert daemon.status().pairing is None
        save_pairing(machine.state, pairing(first_url))
        await first.until(lambda: first.announcements)
        save_pairing(machine.state, pairing(second_url, "rlc_y"))
        await second.until(lambda: second.announcements)
        machine.state.remove(PAIRING_FILE)
        await until(lambda: daemon.status().relay is None)


async def test_the_machine_is_seen_only_when_it_has_its_models(machine: Machine) -> None:
    gateway, engine = RelayGateway(), FakeEngine()
    loaded = asyncio.Event()
    original = engine.start

    async def slow_start() -> None:
        await loaded.wait()
        await original()

    engine.start = slow_start  # type: ignore[method-assign]
    async with gateway.run() as url:
        save_pairing(machine.state, pairing(url))
        async with running(machine, engine) as daemon:
            await asyncio.sleep(0.1)
            assert daemon.status().engine.state == "starting"
            assert gateway.polls == []
            loaded.set()
            await gateway.until(lambda: gateway.announcements)
            assert gateway.announcements[0].models == engine.offered


async def test_new_models_are_announced_at_once(machine: Machine) -> None:
    gateway, engine = RelayGateway(), FakeEngine()
    async with gateway.run() as url:
        save_pairing(machine.state, pairing(url))
        async with running(machine, engine):
            await gateway.until(lambda: gateway.announcements)
            engine.offered = (ModelOffer("pulled"),)
            await gateway.until(lambda: len(gateway.announcements) == 2)
            assert gateway.announcements[1].models == (ModelOffer("pulled"),)


async def test_an_engine_that_is_down_is_tried_again(machine: Machine) -> None:
    engine = FakeEngine()
    engine.error = LatticeError("engine_unavailable", "no model file")
    async with running(machine, engine) as daemon:
        await until(lambda: daemon.status().engine.state == "failed")
        assert "no model file" in str(daemon.status().engine.problem)
        engine.error = None
        await until(lambda: daemon.status().engine.state == "ready")


async def test_a_revoked_machine_goes_on_locally_and_says_why(machine: Machine) -> None:
    gateway = RelayGateway()
    gateway.refusal = (401, LatticeError("revoked_grant").body())
    async with gateway.run() as url:
        save_pairing(machine.state, pairing(url))
        async with running(machine, FakeEngine()) as daemon:
            await until(lambda: (relay := daemon.status().relay) and relay.state == "stopped")
            relay = daemon.status().relay
            assert relay is not None
            assert "revoked_grant" in str(relay.problem)
            endpoint = daemon.endpoint
            assert endpoint is not None
            async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/v1/models") as response:
                assert response.status == 200


async def test_a_revoked_machine_without_local_api_stops(machine: Machine) -> None:
    gateway = RelayGateway()
    gateway.refusal = (401, LatticeError("revoked_grant").body())
    async with gateway.run() as url:
        save_pairing(machine.state, pairing(url))
        daemon = Daemon(settings(machine.state, enabled=False), engine=FakeEngine(), clock=machine.clock)
        await asyncio.wait_for(daemon.run(), 5)


async def test_two_daemons_do_not_share_a_state_directory(machine: Machine) -> None:
    async with running(machine, FakeEngine()):
        with pytest.raises(LatticeError) as caught:
            await Daemon(settings(machine.state), engine=FakeEngine()).run()
        assert caught.value.code == "daemon_already_running"


async def test_a_port_in_use_is_named_and_the_lock_is_given_back(machine: Machine, tmp_path: Path) -> None:
    async with running(machine, FakeEngine()) as daemon:
        assert daemon.endpoint is not None
        other = StateDir(tmp_path / "other")
        with pytest.raises(LatticeError) as caught:
            await Daemon(settings(other, port=daemon.endpoint.port), engine=FakeEngine()).run()
        assert caught.value.code == "config_invalid"
        assert str(daemon.endpoint.port) in caught.value.message
        assert not other.locked()
