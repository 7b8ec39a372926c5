"""`lattice-ctl`: every command has help with an example, --json and --config, and does what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lattice.cli.ctl import app, main
from lattice.core.errors import LatticeError
from lattice.runtime.allow import AllowList
from lattice.runtime.machine import load_pairing
from lattice.runtime.models import DEFAULT_MODEL
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey
from tests.unit.runtime.test_pairing import PairingGateway

COMMANDS = [
    ("daemon", "start"),
    ("daemon", "stop"),
    ("daemon", "status"),
    ("daemon", "run"),
    ("status",),
    ("ping",),
    ("relay", "connect"),
    ("models", "list"),
    ("models", "fetch"),
    ("doctor",),
    ("apps", "allow"),
    ("apps", "list"),
    ("apps", "remove"),
    ("config", "show"),
    ("service",),
]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateDir:
    file = tmp_path / "config.toml"
    file.write_text(f"state_dir = '{tmp_path}/state'\n[local_api]\nport = 0\n")
    monkeypatch.setenv("LATTICE_CONFIG_PATH", str(file))
    monkeypatch.setenv("LATTICE_DATA_DIR", str(tmp_path / "data"))
    return StateDir(tmp_path / "state")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    code: object = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    assert isinstance(code, int)
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code, out, err = run(capsys, *arguments, "--json")
    assert err == ""
    return code, json.loads(out)


WORKER = ("worker", "run")
"""Has no settings file and prints nothing but its log: it belongs to whoever starts it."""


def test_help_of_the_worker_names_its_credential(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *WORKER, "--help")
    assert code == 0
    assert "lattice-ctl worker run --gateway" in " ".join(out.split())
    assert "LATTICE_WORKER_CREDENTIAL" in out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example_json_and_config(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert f"Example: lattice-ctl {' '.join(command)}" in " ".join(out.split())
    assert "--json" in out
    assert "--config" in out


def test_every_command_is_tested_here() -> None:
    found = set()
    for name in app:
        if name.startswith("-"):
            continue
        nested = [n for n in app[name] if not n.startswith("-")] if name in _groups() else []
        found |= {(name, n) for n in nested} if nested else {(name,)}
    assert found == {*COMMANDS, WORKER}


def _groups() -> set[str]:
    return {command[0] for command in (*COMMANDS, WORKER) if len(command) == 2}


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys, lattice.cli.ctl as c\n"
        "try: c.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'aiohttp','pydantic','starlette','uvicorn','cryptography','msgspec','numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout
    assert time.perf_counter() - began < 5


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from lattice import __version__

    assert run(capsys, "--version")[1].strip() == __version__


def test_apps_allow_list_remove(capsys: pytest.CaptureFixture[str], state: StateDir) -> None:
    key = IdentityKey.generate().public.text
    assert run_json(capsys, "apps", "allow", key, "--label", "my app")[1]["key"] == key
    assert key in run(capsys, "apps", "list")[1]
    assert run_json(capsys, "apps", "list")[1]["data"][0]["label"] == "my app"
    assert [e.key for e in AllowList(state).entries()] == [key]
    assert run_json(capsys, "apps", "remove", "my app")[1]["removed"][0]["key"] == key
    assert "Nobody is allowed" in run(capsys, "apps", "list")[1]
    code, error = run_json(capsys, "apps", "remove", "my app")
    assert (code, error["error"]) == (2, "not_found")


def test_a_key_that_begins_with_a_dash_can_be_allowed(capsys: pytest.CaptureFixture[str], state: StateDir) -> None:
    key = next(k for k in (IdentityKey.generate().public.text for _ in range(10_000)) if k.startswith("-"))
    code, out, err = run(capsys, "apps", "allow", key, "--json")
    assert code == 0, err
    assert json.loads(out)["key"] == key


def test_config_show_names_sources_and_masks_secrets(
    capsys: pytest.CaptureFixture[str], state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATTICE_ENGINE__API_KEY", "canary")
    code, report = run_json(capsys, "config", "show")
    rows = {row["key"]: row for row in report["settings"]}
    assert code == 0
    assert rows["engine.api_key"]["source"] == "LATTICE_ENGINE__API_KEY"
    assert rows["state_dir"]["source"] == os.environ["LATTICE_CONFIG_PATH"]
    assert "canary" not in str(report)
    assert "engine.api_key" in run(capsys, "config", "show")[1]


def test_a_bad_config_is_exit_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("nonsense = 1\n")
    code, error = run_json(capsys, "config", "show", "--config", str(bad))
    assert code == 2
    assert "nonsense" in error["message"]


def test_service_prints_a_unit_that_names_this_python(capsys: pytest.CaptureFixture[str], state: StateDir) -> None:
    unit = run(capsys, "service", "--config", os.environ["LATTICE_CONFIG_PATH"])[1]
    assert f"ExecStart={sys.executable} -m lattice.cli.ctl daemon run --config " in unit
    assert unit.endswith("WantedBy=default.target\n")


def test_models_list_is_honest(capsys: pytest.CaptureFixture[str], state: StateDir) -> None:
    out = run(capsys, "models", "list")[1]
    assert DEFAULT_MODEL.id in out
    assert "often wrong" in out
    assert "Ollama" in out


@pytest.mark.parametrize("command", [("daemon", "stop"), ("status",), ("daemon", "status")], ids=" ".join)
def test_without_a_daemon_it_is_exit_status_3(
    capsys: pytest.CaptureFixture[str], state: StateDir, command: tuple[str, ...]
) -> None:
    assert run_json(capsys, *command)[0] == 3
    assert not state.root.exists()


def test_ping_without_a_gateway_is_exit_status_4(capsys: pytest.CaptureFixture[str], state: StateDir) -> None:
    code, error = run_json(capsys, "ping", "--gateway", "http://127.0.0.1:1")
    assert (code, error["error"]) == (4, "gateway_unreachable")


def test_doctor_fails_with_1_on_a_machine_without_a_model(capsys: pytest.CaptureFixture[str], state: StateDir) -> None:
    code, report = run_json(capsys, "doctor")
    assert code == 1
    assert not report["ok"]
    assert {"name", "state", "detail", "remedy"} == set(report["checks"][0])
    assert "models fetch" in run(capsys, "doctor")[1]


@contextlib.contextmanager
def gateway_in_a_thread(gateway: PairingGateway) -> Any:
    import threading

    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    urls: list[str] = []

    async def serve() -> None:
        async with gateway.run() as url:
            urls.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(5)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        loop.close()


def test_relay_connect_pairs(
    capsys: pytest.CaptureFixture[str], state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = PairingGateway()
    with gateway_in_a_thread(gateway) as url:
        code, report = run_json(capsys, "relay", "connect", "--token", gateway.bootstrap, "--gateway", url)
        assert code == 0, report
        assert report["model"].startswith("lattice:personal:lat_")
        assert report["verified"]
        assert not report["daemon_running"]
        monkeypatch.setenv("LATTICE_BOOTSTRAP_TOKEN", gateway.bootstrap)
        out = run(capsys, "relay", "connect", "--gateway", url)[1]
        assert report["fingerprint"] in out
        assert "rlc_" not in out
    assert load_pairing(state) is not None


def test_relay_connect_without_a_token_says_so(
    capsys: pytest.CaptureFixture[str], state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LATTICE_BOOTSTRAP_TOKEN", raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    code, error = run_json(capsys, "relay", "connect")
    assert (code, error["error"]) == (5, "bootstrap_token_invalid")


def test_a_refused_pairing_is_exit_status_6(capsys: pytest.CaptureFixture[str], state: StateDir) -> None:
    gateway = PairingGateway()
    gateway.change = {"app_key_mac": None}
    with gateway_in_a_thread(gateway) as url:
        code, error = run_json(capsys, "relay", "connect", "--token", gateway.bootstrap, "--gateway", url)
    assert (code, error["error"]) == (6, "pairing_invalid")


def test_unexpected_errors_are_not_hidden(
    capsys: pytest.CaptureFixture[str], state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(AllowList, "entries", broken)
    with pytest.raises(RuntimeError):
        run(capsys, "apps", "list")
    assert issubclass(LatticeError, Exception)
