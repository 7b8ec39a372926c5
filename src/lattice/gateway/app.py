"""Assembles a gateway: opens its parts, mounts its routes, and runs the loops that keep money and leases true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
from fastapi import FastAPI
from starlette.routing import Router
from starlette.types import ASGIApp

from lattice import __version__
from lattice.core.clock import Clock, SystemClock
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway import api_models, health
from lattice.gateway.api import routers as account_routers
from lattice.gateway.catalogue import DEFAULT_PRICES, Catalogue
from lattice.gateway.chat.routes import InferenceEndpoint
from lattice.gateway.chat.service import WorkService
from lattice.gateway.encrypted import routes as encrypted_routes
from lattice.gateway.encrypted.platform import EncryptedPlatform
from lattice.gateway.http.boundary import Boundary
from lattice.gateway.http.dispatch import Dispatch, direct
from lattice.gateway.http.errors import install_error_handlers
from lattice.gateway.http.limits import MAX_CONTROL_BODY, BoundedBodies
from lattice.gateway.http.openapi import describe_hot_routes
from lattice.gateway.idempotency import purge
from lattice.gateway.identity.cache import KeyCache
from lattice.gateway.identity.owner import OwnerKey, bootstrap_owner, has_accounts
from lattice.gateway.identity.pepper import load_pepper
from lattice.gateway.identity.rates import RequestRates
from lattice.gateway.keyfile import read_or_create
from lattice.gateway.ledger import put_price, reap, recover
from lattice.gateway.metrics import Metrics
from lattice.gateway.queries import routes as query_routes
from lattice.gateway.relay.hub import Hub
from lattice.gateway.relay.routes import RelayEndpoints
from lattice.gateway.runtimes import routes as runtime_routes
from lattice.gateway.runtimes.credentials import RuntimeCredentials
from lattice.gateway.runtimes.pairing import Pairing
from lattice.gateway.runtimes.presence import Presence
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.state import Gateway
from lattice.gateway.store.database import Store
from lattice.gateway.workers import relay_routes as worker_relay
from lattice.gateway.workers import routes as worker_routes
from lattice.gateway.workers.hardware import ensure_default
from lattice.gateway.workers.platform import WorkerPlatform
from lattice.sealing.identity import IdentityKey

_log = structlog.get_logger("lattice.gateway")

UPKEEP_SECONDS = 5.0


async def open_gateway(settings: GatewaySettings, clock: Clock | None = None) -> tuple[Gateway, OwnerKey | None]:
    """Open the store and build every part. The owner's key comes back only on the very first start."""
    clock = clock or SystemClock()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = await Store.open(settings.database)
    new = not await store.read(has_accounts)
    pepper = load_pepper(settings.data_dir / "pepper", create=new)
    owner = await store.write(bootstrap_owner, pepper, clock.now_ms())
    if owner is not None:
        for price in DEFAULT_PRICES:
            await store.write(put_price, price)
    sender = IdentityKey.from_bytes(
        read_or_create(settings.data_dir / "gateway.key", lambda: IdentityKey.generate().to_bytes(), create=new)
    )
    gateway_id = _gateway_id(settings.data_dir, clock)
    left = await store.write(recover, gateway_id, clock.now_ms())
    if left:
        _log.warning("recovered", voided=len(left))
    await store.write(ensure_default)
    encrypted = EncryptedPlatform(settings, store, pepper, clock, gateway_id, settings.data_dir)
    metrics = Metrics()
    hub = Hub(store, clock, metrics, gateway_id)
    gateway = Gateway(
        settings=settings,
        clock=clock,
        store=store,
        pepper=pepper,
        keys=KeyCache(store, pepper, clock),
        rates=RequestRates(),
        metrics=metrics,
        hub=hub,
        catalogue=Catalogue(store, clock),
        works=WorkService(store, hub, clock, metrics, int(settings.execution_seconds * 1000)),
        credentials=RuntimeCredentials(store, pepper, clock),
        presence=Presence(hub, store, clock, settings.max_queue),
        pairing=Pairing(store, pepper, clock, settings.origin, sender.public.text),
        sender_key=sender,
        encrypted=encrypted,
        workers=WorkerPlatform(
            settings, store, pepper, clock, gateway_id, encrypted.blobs, encrypted.events, encrypted.webhooks
        ),
    )
    return gateway, owner


def make_app(gateway: Gateway) -> ASGIApp:
    """The ASGI application of an open gateway."""
    relay = RelayEndpoints(gateway.hub, gateway.credentials, gateway.presence, gateway.settings.origin)
    control = FastAPI(title="Lattice", version=__version__, docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    install_error_handlers(control)
    queries, workers = query_routes.QueryCounter(gateway), worker_relay.WorkerEndpoints(gateway)
    for router in (
        *account_routers(gateway),
        runtime_routes.router(gateway),
        api_models.router(gateway),
        *encrypted_routes.routers(gateway),
        *worker_routes.routers(gateway),
        worker_relay.router(workers),
        query_routes.router(gateway, queries),
        health.router(gateway),
    ):
        control.include_router(router)
    describe_hot_routes(control)
    hot: dict[str, ASGIApp] = {
        "/v1/chat/completions": InferenceEndpoint(gateway, "chat"),
        "/v1/embeddings": InferenceEndpoint(gateway, "embeddings"),
        "/v1/relay/poll": relay.poll,
        "/v1/relay/frames": relay.frames,
        "/v1/relay/renew": relay.renew,
        "/v1/relay/fail": relay.fail,
    }
    seconds = gateway.settings.body_seconds
    also: dict[str, ASGIApp] = {
        query_routes.SUBMIT: direct(queries.submit),
        worker_relay.POLL: BoundedBodies(direct(workers.poll), MAX_CONTROL_BODY, seconds),
        worker_relay.RESULTS: direct(workers.results),
    }
    bounded = BoundedBodies(control, MAX_CONTROL_BODY, seconds, _reads_own_body)
    rest = Router(default=bounded, redirect_slashes=False, lifespan=lambda _: _lifespan(gateway))
    return Boundary(Dispatch(hot | also, rest, shared=also), gateway.clock, gateway.metrics)


@asynccontextmanager
async def _lifespan(gateway: Gateway) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(gateway.hub.sweep_forever(), name="sweep"),
        asyncio.create_task(_upkeep_forever(gateway), name="upkeep"),
        *gateway.encrypted.loops(),
        *gateway.workers.loops(),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(LatticeError):
            await gateway.keys.flush()
        await gateway.workers.close()
        await gateway.encrypted.close()
        await gateway.store.close()


async def _upkeep_forever(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(UPKEEP_SECONDS)
        try:
            # Whatever runs here gets its next attempt, or its own error, before the reaper comes.
            await gateway.hub.sweep()
            now = gateway.clock.now_ms()
            for reaped in await gateway.store.write(reap, now):
                work = gateway.hub.works.get(reaped.work_id)
                if work is not None:
                    work.fail(LatticeError("lease_lost"))
            await gateway.store.write(purge, now)
            await gateway.keys.flush()
            await gateway.encrypted.upkeep()
            await gateway.workers.upkeep()
        except LatticeError as error:
            _log.warning("upkeep_failed", code=error.code)


def _reads_own_body(method: str, path: str) -> bool:
    streamed = method == "POST" and path in (query_routes.SUBMIT, worker_relay.RESULTS)
    return streamed or encrypted_routes.reads_own_body(method, path)


def _gateway_id(data_dir: Path, clock: Clock) -> str:
    made = read_or_create(data_dir / "gateway.id", lambda: new_id(Prefix.GATEWAY, clock.now_ms()).encode())
    return made.decode()
