"""Handling a daemon from outside: start it detached, stop it, find it, ask it; and asking the gateway."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lattice.core.errors import LatticeError
from lattice.runtime.settings import DaemonSettings
from lattice.runtime.state import StateDir
from lattice.runtime.status import ENDPOINT_FILE, LOG_FILE, TOKEN_FILE, Endpoint

_POLL_S = 0.05
_SETTLE_S = 20.0
_SETTLED = ("connected", "waiting", "stopped")
MAX_LOG_BYTES = 16 * 1024 * 1024


def daemon_pid(state: StateDir) -> int | None:
    """The running daemon's process id; the lock, and not a file that may be stale, says whether one runs."""
    if not state.locked():
        return None
    try:
        return int(state.path("daemon.lock").read_text() or 0) or None
    except (OSError, ValueError):
        return None


def read_endpoint(state: StateDir) -> Endpoint | None:
    """Where the local API is, if the daemon serves one."""
    return state.read(ENDPOINT_FILE, Endpoint)


def start_daemon(settings: DaemonSettings, state: StateDir, config: Path | None, timeout_s: float) -> dict[str, Any]:
    """Start a detached daemon and wait until it is healthy; if it dies, its last words are in the error."""
    state.prepare()
    if state.locked():
        raise LatticeError("daemon_already_running")
    log = state.path(LOG_FILE)
    process = _spawn(log, config)
    deadline = time.monotonic() + timeout_s
    while not _healthy(settings, state, process.pid):
        if process.poll() is not None:
            raise LatticeError("daemon_not_running", f"The daemon ended at once. Its last words: {_last_words(log)}")
        if time.monotonic() > deadline:
            process.terminate()
            raise LatticeError("daemon_not_running", f"The daemon did not answer in {timeout_s:.0f} s: see {log}.")
        time.sleep(_POLL_S)
    endpoint = read_endpoint(state)
    started = {"pid": process.pid, "local_api": endpoint.url if endpoint else None, "log": str(log)}
    return started | (_settled(state, min(deadline, time.monotonic() + _SETTLE_S)) if endpoint else {})


def _settled(state: StateDir, deadline: float) -> dict[str, Any]:
    """Wait a little for model and connection, so that what one types next works; large models load for longer."""
    while True:
        try:
            status = fetch_status(state)
        except LatticeError:
            return {}
        engine, relay = status["engine"], status.get("relay") or {}
        settled = engine["state"] != "starting" and (not status.get("pairing") or relay.get("state", "") in _SETTLED)
        if settled or time.monotonic() > deadline:
            return {"engine": engine["state"], "problem": engine.get("problem"), "relay": relay.get("state")}
        time.sleep(_POLL_S)


def stop_daemon(state: StateDir, timeout_s: float) -> int:
    """SIGTERM, then wait for the drain."""
    pid = daemon_pid(state)
    if pid is None:
        raise LatticeError("daemon_not_running")
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while state.locked():
        if time.monotonic() > deadline:
            message = f"Process {pid} still runs after {timeout_s:.0f} s. It may be finishing an answer."
            raise LatticeError("daemon_already_running", message)
        time.sleep(_POLL_S)
    return pid


def fetch_status(state: StateDir) -> dict[str, Any]:
    """The running daemon's own account of itself."""
    if not state.locked():
        raise LatticeError("daemon_not_running")
    endpoint, token = read_endpoint(state), state.read_bytes(TOKEN_FILE)
    if endpoint is None or token is None:
        raise LatticeError("daemon_not_running", "The daemon is starting, or its local API is switched off.")
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=5)
    try:
        connection.request("GET", "/status", headers={"Authorization": f"Bearer {token.decode()}"})
        response = connection.getresponse()
        body = response.read()
    except OSError:
        raise LatticeError("daemon_not_running", "The daemon holds its lock and does not answer.") from None
    finally:
        connection.close()
    if response.status != 200:
        raise LatticeError("daemon_not_running", f"The daemon answered with HTTP status {response.status}.")
    status: dict[str, Any] = json.loads(body)
    return status


async def ping_gateway(url: str, count: int = 3) -> dict[str, Any]:
    """Time `GET /healthz`, and compare the clocks."""
    import aiohttp

    times: list[float] = []
    skew_ms: int | None = None
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            for _ in range(max(1, count)):
                began = time.perf_counter()
                async with session.get(url.rstrip("/") + "/healthz", allow_redirects=False) as response:
                    body = await response.read()
                    if response.status != 200:
                        message = f"{url} answers with HTTP status {response.status}, so it is no healthy gateway."
                        raise LatticeError("gateway_unreachable", message)
                    times.append((time.perf_counter() - began) * 1000)
                    skew_ms = _skew_ms(body, times[-1])
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        raise LatticeError("gateway_unreachable", f"{url} does not answer.") from None
    return {
        "gateway": url,
        "times_ms": [round(t, 2) for t in times],
        "best_ms": round(min(times), 2),
        "skew_ms": skew_ms,
    }


def _skew_ms(body: bytes, round_trip_ms: float) -> int | None:
    """How far this machine's clock is ahead of the gateway's, to half a round trip."""
    now = json.loads(body).get("now_ms")
    return int(time.time() * 1000 - round_trip_ms / 2) - now if isinstance(now, int) else None


def _spawn(log: Path, config: Path | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lattice.cli.ctl", "daemon", "run"]
    if config is not None:
        command += ["--config", str(config.expanduser().absolute())]
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
        )
    finally:
        os.close(descriptor)


def _healthy(settings: DaemonSettings, state: StateDir, pid: int) -> bool:
    if not settings.local_api.enabled:
        return daemon_pid(state) == pid
    endpoint = read_endpoint(state)
    if endpoint is None or endpoint.pid != pid:
        return False
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return "none"
    return " / ".join(lines[-3:]) if lines else "none"
