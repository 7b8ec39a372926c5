"""Runs a gateway process: open, serve, drain on SIGTERM or SIGINT, close."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lattice.core.errors import LatticeError
from lattice.gateway.app import make_app, open_gateway
from lattice.gateway.http.server import make_server
from lattice.gateway.identity.owner import OwnerKey
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.state import Gateway


async def serve(settings: GatewaySettings, on_ready: Callable[[Gateway, OwnerKey | None], None]) -> None:
    """Serve until a signal comes. `on_ready` runs once the port is bound."""
    listener = _listen(settings.host, settings.port)
    if settings.port == 0:
        settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    with _only_one(settings.data_dir):
        await _serve(settings, listener, on_ready)


async def _serve(
    settings: GatewaySettings, listener: socket.socket, on_ready: Callable[[Gateway, OwnerKey | None], None]
) -> None:
    gateway, owner = await open_gateway(settings)
    server = make_server(make_app(gateway), settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    _calm_collector()
    on_ready(gateway, owner)
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not serving.done():
        gateway.encrypted.events.close()  # else their readers would hold the server open
        await gateway.hub.drain(settings.drain_seconds)
        gateway.workers.service.switchboard.close()
        server.should_exit = True
    await serving


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder; the kernel lets go of it when the process dies.

    At its start a gateway voids what an earlier process with its id left in flight. A second one that is started by
    mistake would void the work of the first one, which still runs.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(data_dir / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LatticeError("config_invalid", f"Another gateway runs with the data folder {data_dir}.") from None
        yield
    finally:
        os.close(descriptor)


def _calm_collector() -> None:
    """Requests make few cycles and modules live for ever: looking for garbage in them took 6 % of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise LatticeError("config_invalid", f"Cannot listen on {host}:{port}: {error.strerror}.") from None
    listener.listen(4096)
    listener.setblocking(False)
    return listener
