"""The played world, and one `sdk` fixture that runs a test with the synchronous and the asynchronous client."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from lattice.client.aio import AsyncComputeClient
from lattice.client.compute import ComputeClient
from lattice.client.store import KeyStore, memory_key_store
from lattice.core.clock import ManualClock
from tests.unit.client.played import KEY, ORIGIN, PlayedDaemon, PlayedGateway


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def gateway(clock: ManualClock) -> PlayedGateway:
    return PlayedGateway(clock)


@pytest.fixture
def store() -> KeyStore:
    return memory_key_store()


class Sdk:
    """Calls a client by method name and waits, whichever kind it is. Streams come back as `(stream, deltas)`."""

    def __init__(self, kind: str, gateway: PlayedGateway, store: KeyStore, clock: ManualClock) -> None:
        self.kind = kind
        self.gateway = gateway
        self.store = store
        self.clock = clock
        self.pauses: list[float] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._call(name, args, kwargs)

    def _call(self, name: str, args: Any, kwargs: Any) -> Any:
        if self.kind == "async":
            return asyncio.run(self._call_async(name, args, kwargs))
        with httpx2.Client(transport=httpx2.MockTransport(self.gateway)) as http:
            client = ComputeClient(ORIGIN, KEY, store=self.store, http_client=http, clock=self.clock)
            client._driver._sleep = self.pauses.append
            result = getattr(client, name)(*args, **kwargs)
            if "stream" in name:
                return result, list(result)
            return list(result) if inspect.isgenerator(result) else result

    async def _call_async(self, name: str, args: Any, kwargs: Any) -> Any:
        async def pause(seconds: float) -> None:
            self.pauses.append(seconds)

        async with httpx2.AsyncClient(transport=httpx2.MockTransport(self.gateway)) as http:
            client = AsyncComputeClient(ORIGIN, KEY, store=self.store, http_client=http, clock=self.clock)
            client._driver._sleep = pause
            result = getattr(client, name)(*args, **kwargs)
            if inspect.isasyncgen(result):
                return [item async for item in result]
            result = await result
            return (result, [delta async for delta in result]) if "stream" in name else result

    def pair(self) -> PlayedDaemon:
        """Create, bootstrap and redeem, as a user would."""
        runtime = self.create_personal_runtime("laptop")
        bootstrap = self.bootstrap_personal_runtime(runtime.id)
        daemon = self.gateway.daemons[runtime.id]
        daemon.redeem(bootstrap, self.gateway.minted[runtime.id])
        return daemon


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest, gateway: PlayedGateway, store: KeyStore, clock: ManualClock) -> Sdk:
    return Sdk(request.param, gateway, store, clock)


@pytest.fixture
def daemon(sdk: Sdk, gateway: PlayedGateway) -> PlayedDaemon:
    """A machine that was paired from this app; the requests of the pairing are not counted."""
    paired = sdk.pair()
    gateway.requests.clear()
    return paired
