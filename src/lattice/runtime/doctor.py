"""Explains a broken set-up in words: each check says what it found and, where that is bad, what to do."""

from __future__ import annotations

import importlib.util
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import aiohttp
import msgspec

from lattice.core.clock import MINUTE_MS
from lattice.core.errors import LatticeError
from lattice.core.relay import LEASE_MS
from lattice.runtime import paths
from lattice.runtime.allow import AllowList
from lattice.runtime.control import daemon_pid, fetch_status, ping_gateway
from lattice.runtime.engines.choice import make_engine
from lattice.runtime.machine import IDENTITY_FILE, PAIRING_FILE, load_identity, load_pairing
from lattice.runtime.models import BETTER_MODELS, DEFAULT_MODEL, digest_of, is_default_model, model_file
from lattice.runtime.settings import DaemonSettings
from lattice.runtime.settings_file import CONFIG_VARIABLE, LoadedSettings, load_settings
from lattice.runtime.state import StateDir
from lattice.runtime.work_keys import WORK_KEYS_FILE
from lattice.sealing.suites import Suite, available_suites

OLDEST_PYTHON = (3, 11)
_SKEW_LIMIT_MS = MINUTE_MS
_SECRET_FILES = (IDENTITY_FILE, PAIRING_FILE, WORK_KEYS_FILE)


class Check(msgspec.Struct, frozen=True):
    """One finding."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


async def examine(config: Path | None) -> list[Check]:
    """Run every check that the earlier ones leave possible."""
    checks = list(_installation())
    try:
        loaded = load_settings(config)
    except LatticeError as error:
        return [*checks, Check("settings", "fail", error.message, error.spec.remedy)]
    settings, state = loaded.settings, StateDir(loaded.settings.state_dir)
    checks += [_settings(loaded), _state(state), *_model(settings)]
    running = daemon_pid(state) is not None
    checks.append(_daemon(state) if running else await _engine(settings))
    if not running:
        checks.append(_port(settings))
    return [*checks, _pairing(state), *await _gateway(settings, state)]


def _installation() -> Iterator[Check]:
    version = sys.version.split()[0]
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Check("python", "fail", f"Python {version} is too old.", "Install Python 3.11 or newer.")
    else:
        yield Check("python", "ok", f"Python {version}")
    if Suite.XWING in available_suites():
        yield Check("sealing", "ok", "X-Wing: safe against a later quantum computer")
    else:
        detail = "`cryptography` has no ML-KEM here, so work is sealed with X25519 alone."
        yield Check("sealing", "warn", detail, "Install a newer wheel: pip install -U cryptography")


def _settings(loaded: LoadedSettings) -> Check:
    if loaded.file is not None:
        return Check("settings", "ok", f"read from {loaded.file}")
    wanted = f"{paths.user_config_file()}, --config or {CONFIG_VARIABLE}"
    return Check("settings", "ok", f"defaults; no file at {wanted}")


def _state(state: StateDir) -> Check:
    if not state.root.exists():
        return Check("state", "ok", f"{state.root} will be made when it is needed")
    try:
        state.prepare()
        state.write_bytes(".doctor", b"")
        state.remove(".doctor")
        load_identity(state)
    except LatticeError as error:
        return Check("state", "fail", error.message, f"Make {state.root} yours: chown -R $USER {state.root}")
    except OSError as error:
        return Check(
            "state", "fail", f"{state.root} can't be written: {error.strerror}.", "Free space, or set state_dir."
        )
    loose = [n for n in _SECRET_FILES if state.path(n).exists() and state.path(n).stat().st_mode & 0o077]
    if loose:
        remedy = f"chmod 600 {' '.join(str(state.path(name)) for name in loose)}"
        return Check("state", "fail", f"Other users of this machine can read {', '.join(loose)}.", remedy)
    return Check("state", "ok", f"{state.root}, private")


def _model(settings: DaemonSettings) -> Iterator[Check]:
    engine = settings.engine
    if engine.kind == "openai":
        return
    if importlib.util.find_spec("xllamacpp") is None:
        remedy = 'install Lattice with its `llama` extra, or use a local server: engine.kind = "openai"'
        yield Check("llama.cpp", "fail", "xllamacpp is not installed.", remedy)
    path = model_file(engine)
    digest = digest_of(path)
    if digest is None:
        remedy = "Correct `engine.model`." if engine.model else "lattice-ctl models fetch"
        yield Check("model", "fail", f"There is no model file at {path}.", remedy)
    elif is_default_model(engine) and digest != DEFAULT_MODEL.sha256:
        remedy = f"rm {path} && lattice-ctl models fetch"
        yield Check("model", "fail", f"{path} is damaged: its SHA-256 is not the pinned one.", remedy)
    elif is_default_model(engine):
        yield Check("model", "ok", f"{DEFAULT_MODEL.id}, digest right. {DEFAULT_MODEL.note} {BETTER_MODELS}")
    else:
        yield Check("model", "ok", f"{path}")


async def _engine(settings: DaemonSettings) -> Check:
    try:
        engine = make_engine(settings.engine)
    except LatticeError as error:
        return Check("engine", "fail", error.message, error.spec.remedy)
    began = time.perf_counter()
    try:
        await engine.start()
        offers = await engine.offers()
    except LatticeError as error:
        remedy = "Start the server, or correct `engine.base_url`." if settings.engine.kind == "openai" else ""
        return Check("engine", "fail", error.message, remedy or error.spec.remedy)
    finally:
        await engine.stop()
    if not offers:
        return Check("engine", "fail", f"{engine.name} answers and has no models.", "Load one: ollama pull llama3.2")
    took = time.perf_counter() - began
    return Check("engine", "ok", f"{engine.name} answers in {took:.1f} s: {', '.join(o.id for o in offers[:5])}")


def _daemon(state: StateDir) -> Check:
    try:
        status = fetch_status(state)
    except LatticeError as error:
        return Check("daemon", "warn", error.message, "lattice-ctl daemon stop, then lattice-ctl daemon start")
    engine = status["engine"]
    if engine.get("problem"):
        return Check("daemon", "fail", f"The daemon runs without a model: {engine['problem']}", "See the check above.")
    relay = status.get("relay") or {}
    if relay.get("state") == "stopped":
        return Check(
            "daemon", "fail", f"The connection has ended for good: {relay['problem']}", "Pair the machine anew."
        )
    if abs(relay.get("skew_ms", 0)) > _SKEW_LIMIT_MS:
        detail = f"This machine's clock is {relay['skew_ms'] / 1000:.0f} s off the gateway's."
        return Check("daemon", "warn", detail, "Switch on network time: timedatectl set-ntp true")
    names = ", ".join(model["id"] for model in engine.get("models", ())) or "no models yet"
    return Check("daemon", "ok", f"process {status['pid']} serves {names}")


def _port(settings: DaemonSettings) -> Check:
    api = settings.local_api
    if not api.enabled or not api.port:
        return Check("port", "ok", "the local API is off" if not api.enabled else "any free port")
    with socket.socket(socket.AF_INET6 if ":" in api.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((api.host, api.port))
        except OSError as error:
            detail = f"{api.host}:{api.port} can't be used: {error.strerror}."
            return Check("port", "fail", detail, "Set local_api.port to another number, or to 0.")
    return Check("port", "ok", f"{api.host}:{api.port} is free")


def _pairing(state: StateDir) -> Check:
    try:
        pairing, senders = load_pairing(state), AllowList(state).entries()
    except LatticeError as error:
        return Check("pairing", "fail", error.message, error.spec.remedy)
    if pairing is None:
        return Check("pairing", "warn", "not paired with a gateway", "lattice-ctl relay connect --token lbt_…")
    if not senders:
        return Check("pairing", "warn", "paired, and nobody is allowed to send work", "lattice-ctl apps allow <key>")
    if not pairing.verified:
        remedy = "Compare `lattice-ctl status`'s fingerprint with the one that the app shows."
        return Check("pairing", "warn", f"{pairing.runtime} at {pairing.origin}, without a pairing secret", remedy)
    return Check("pairing", "ok", f"{pairing.runtime} at {pairing.origin}; {len(senders)} allowed senders")


async def _gateway(settings: DaemonSettings, state: StateDir) -> list[Check]:
    try:
        pairing = load_pairing(state)
    except LatticeError:
        return []
    url = pairing.origin if pairing else settings.gateway_url
    try:
        answer = await ping_gateway(url, 2)
    except (LatticeError, aiohttp.ClientError) as error:
        words = error.message if isinstance(error, LatticeError) else f"{url} does not answer."
        severity: Literal["warn", "fail"] = "fail" if pairing else "warn"
        return [Check("gateway", severity, words, "Check the address, and that the gateway runs: lattice up")]
    checks = [Check("gateway", "ok", f"{url} answers in {answer['best_ms']:.0f} ms")]
    skew = answer["skew_ms"]
    if skew is not None and abs(skew) > _SKEW_LIMIT_MS:
        detail = f"This machine's clock is {skew / 1000:.0f} s off the gateway's; sealed work carries times."
        severity = "fail" if abs(skew) > 5 * LEASE_MS else "warn"
        checks.append(Check("clock", severity, detail, "Switch on network time: timedatectl set-ntp true"))
    elif skew is not None:
        checks.append(Check("clock", "ok", "agrees with the gateway's"))
    return checks
