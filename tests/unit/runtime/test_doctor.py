"""The doctor: every broken set-up is named, with a remedy."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from aiohttp import web

from lattice.core.clock import SystemClock
from lattice.runtime import doctor
from lattice.runtime.allow import AllowList
from lattice.runtime.doctor import Check, examine
from lattice.runtime.machine import Pairing, load_or_create_identity, save_pairing
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey
from tests.unit.runtime.machines import FakeEngine
from tests.unit.runtime.servers import ModelServer, listening


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG_PATH", "DATA_DIR"):
        monkeypatch.delenv(f"LATTICE_{name}", raising=False)
    for name in ("CONFIG", "STATE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))


def config(tmp_path: Path, text: str = "") -> Path:
    file = tmp_path / "a.toml"
    file.write_text(f"state_dir = '{tmp_path}/state'\ngateway_url = 'http://127.0.0.1:1'\n{text}\n")
    return file


async def checks(file: Path) -> dict[str, Check]:
    return {check.name: check for check in await examine(file)}


async def test_a_fresh_machine(tmp_path: Path) -> None:
    found = await checks(config(tmp_path))
    assert {name for name, check in found.items() if check.state == "fail"} == {"model", "engine"}
    assert found["model"].remedy == "lattice-ctl models fetch"
    assert found["pairing"].state == "warn"
    assert found["gateway"].state == "warn"
    assert all(check.remedy for check in found.values() if check.state != "ok")


async def test_a_healthy_machine(tmp_path: Path) -> None:
    server = ModelServer()

    async def healthy(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": "ok", "now_ms": SystemClock().now_ms()})

    app = web.Application()
    app.router.add_get("/healthz", healthy)
    state = StateDir(tmp_path / "state")
    load_or_create_identity(state)
    AllowList(state).add(IdentityKey.generate().public.text, "gateway", "gateway", 1)
    async with server.run() as base_url, listening(app) as gateway:
        save_pairing(state, Pairing("lat_x", gateway, gateway, "rlc_canary", "k", SystemClock().now_ms(), True))
        found = await checks(config(tmp_path, f"[engine]\nkind='openai'\nbase_url='{base_url}'\n[local_api]\nport=0"))
    assert {check.state for check in found.values()} == {"ok"}
    assert set(found) >= {"python", "settings", "state", "engine", "port", "pairing", "gateway", "clock"}
    assert "canary" not in str(found)


async def test_settings_that_cannot_be_read_end_the_examination(tmp_path: Path) -> None:
    found = await checks(config(tmp_path, "nonsense = 1"))
    assert found["settings"].state == "fail"
    assert "nonsense" in found["settings"].detail


async def test_a_damaged_model(tmp_path: Path) -> None:
    model = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    model.write_bytes(b"GGUF")
    found = await checks(config(tmp_path, f"[engine]\nmodel='{model}'"))
    assert "SHA-256" in found["model"].detail
    assert found["engine"].state == "fail"


async def test_keys_that_others_can_read(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    load_or_create_identity(state)
    state.path("identity.key").chmod(0o644)
    found = await checks(config(tmp_path))
    assert found["state"].state == "fail"
    assert "chmod 600" in found["state"].remedy


async def test_a_damaged_identity(tmp_path: Path) -> None:
    StateDir(tmp_path / "state").write_bytes("identity.key", b"short")
    found = await checks(config(tmp_path))
    assert found["state"].state == "fail"


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = await checks(config(tmp_path, f"[local_api]\nport={port}"))
    assert found["port"].state == "fail"
    assert str(port) in found["port"].detail


async def test_a_pairing_without_a_secret_asks_for_the_fingerprint(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "state")
    url = "http://127.0.0.1:1"
    save_pairing(state, Pairing("lat_x", url, url, "rlc_x", "k", 1, False))
    found = await checks(config(tmp_path))
    assert "nobody is allowed" in found["pairing"].detail
    assert found["gateway"].state == "fail"
    AllowList(state).add(IdentityKey.generate().public.text, "gateway", "gateway", 1)
    found = await checks(config(tmp_path))
    assert "fingerprint" in found["pairing"].remedy


async def test_a_clock_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def skewed(url: str, _count: int) -> dict[str, object]:
        return {"gateway": url, "times_ms": [1.0], "best_ms": 1.0, "skew_ms": 600_000}

    monkeypatch.setattr(doctor, "ping_gateway", skewed)
    found = await checks(config(tmp_path))
    assert found["clock"].state == "fail"
    assert "600 s" in found["clock"].detail


async def test_a_server_without_models(tmp_path: Path) -> None:
    server = ModelServer()
    server.models = []
    async with server.run() as base_url:
        found = await checks(config(tmp_path, f"[engine]\nkind='openai'\nbase_url='{base_url}'"))
    assert "no models" in found["engine"].detail


async def test_the_engine_is_stopped_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(doctor, "make_engine", lambda _settings: engine)
    await checks(config(tmp_path))
    assert (engine.started, engine.stopped) == (1, 1)
