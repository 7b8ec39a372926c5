"""The two clients are one: same methods, same arguments. Settings, closing and leaving a stream early."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys

import httpx2
import pytest

import lattice
from lattice.client.aio import AsyncComputeClient
from lattice.client.compute import ComputeClient
from lattice.client.settings import default_store_dir, normalise_base_url, resolve_settings
from lattice.client.store import KeyStore
from lattice.client.transport import AsyncSealedTransport, SealedTransport
from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.core.origin import origin_of
from tests.unit.client.conftest import Sdk
from tests.unit.client.played import KEY, ORIGIN, PlayedGateway

ASK = [{"role": "user", "content": "hello"}]


def public(cls: type) -> dict[str, list[tuple[str, str, object]]]:
    """Every public method with its parameters: name, kind and default."""
    methods = inspect.getmembers(cls, inspect.isfunction)
    return {
        name: [(p.name, p.kind.name, p.default) for p in inspect.signature(method).parameters.values()]
        for name, method in methods
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(("one", "other"), [(ComputeClient, AsyncComputeClient)])
def test_the_asynchronous_twin_has_the_same_methods_and_arguments(one: type, other: type) -> None:
    assert public(one) == public(other)
    for name in public(one).keys() - {"__init__"}:
        twin = getattr(other, name)
        assert inspect.iscoroutinefunction(twin) or "AsyncIterator" in str(inspect.signature(twin)), name
        assert twin.__doc__ == getattr(one, name).__doc__


def test_the_transports_are_constructed_alike() -> None:
    one, other = (list(inspect.signature(t).parameters) for t in (SealedTransport, AsyncSealedTransport))
    assert one == other


def test_the_public_names_load_lazily_and_lightly() -> None:
    program = (
        "import sys, lattice; assert 'httpx2' not in sys.modules;"
        "lattice.ComputeClient, lattice.AsyncComputeClient, lattice.SealedTransport, lattice.AsyncSealedTransport;"
        "heavy = {'pydantic', 'openai', 'rich', 'cyclopts', 'aiohttp', 'starlette', 'sqlalchemy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert lattice.ComputeClient is ComputeClient


def test_settings_come_from_arguments_then_environment_then_defaults() -> None:
    env = {"LATTICE_BASE_URL": "https://Gate.example/v1/", "LATTICE_API_KEY": "sk_lat_env"}
    assert resolve_settings(environment=env).origin == "https://gate.example"
    assert resolve_settings(environment=env).base_url == "https://Gate.example"
    assert resolve_settings("http://h:1", "sk_lat_x", environment=env).api_key == "sk_lat_x"
    assert resolve_settings(api_key="k", environment={}).base_url == "http://127.0.0.1:8787"
    assert "sk_lat_env" not in repr(resolve_settings(environment=env))
    for key in (None, "", "two words", "new\nline", "grün"):
        with pytest.raises(LatticeError) as caught:
            resolve_settings(api_key=key, environment={})
        assert caught.value.code == "invalid_credential"


def test_origins_have_one_form() -> None:
    assert origin_of("HTTP://Host:80/x") == "http://host"
    assert origin_of("https://[2001:DB8::1]:8443") == "https://[2001:db8::1]:8443"
    assert {origin_of(f"http://{h}:8787") for h in ("localhost", "127.0.0.1", "[::1]")} == {"http://127.0.0.1:8787"}
    assert normalise_base_url("http://h:8787/v1") == "http://h:8787"
    assert normalise_base_url("http://h/prefix/") == "http://h/prefix"
    for bad in ("gateway.test", "ftp://h", "http://u:p@h", "http://h?x=1", "http://h:99999999", ""):
        with pytest.raises(LatticeError) as caught:
            origin_of(bad)
        assert caught.value.code == "config_invalid"


def test_a_proxy_is_never_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with ComputeClient("http://localhost:9", KEY) as own, ComputeClient("http://gateway.test", KEY) as other:
        assert not [mount for mount in own._http._mounts.values() if mount]
        assert [mount for mount in other._http._mounts.values() if mount]


def test_the_key_stores_folder_follows_the_environment() -> None:
    assert str(default_store_dir({"LATTICE_CLIENT_HOME": "/x/y"})) == "/x/y"
    assert str(default_store_dir({"XDG_CONFIG_HOME": "/c"})) == "/c/lattice/client"
    assert default_store_dir({"XDG_CONFIG_HOME": "relative"}).parts[-3:] == (".config", "lattice", "client")


def test_leaving_a_stream_early_closes_the_connection(
    gateway: PlayedGateway, store: KeyStore, clock: ManualClock
) -> None:
    sdk = Sdk("sync", gateway, store, clock)
    daemon = sdk.pair()
    http = httpx2.Client(transport=httpx2.MockTransport(gateway))
    with ComputeClient(ORIGIN, KEY, store=store, http_client=http, clock=clock) as client:
        with client.chat_stream_for_personal_runtime(daemon.runtime_id, ASK) as stream:
            next(stream)
        assert gateway.bodies[0].closed
        assert list(stream) == []
        assert not stream.finished
        assert stream.receipt is None
    assert not http.is_closed  # a client that was handed in stays the caller's
    http.close()


def test_an_asynchronous_stream_closes_when_its_task_is_cancelled(
    gateway: PlayedGateway, store: KeyStore, clock: ManualClock
) -> None:
    sdk = Sdk("async", gateway, store, clock)
    daemon = sdk.pair()

    async def abandon() -> None:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(gateway)) as http:
            client = AsyncComputeClient(ORIGIN, KEY, store=store, http_client=http, clock=clock)
            async with await client.chat_stream_for_personal_runtime(daemon.runtime_id, ASK) as stream:
                async for _ in stream:
                    break

    asyncio.run(abandon())
    assert gateway.bodies[0].closed


def test_a_client_closes_what_it_opened() -> None:
    with ComputeClient("http://127.0.0.1:9", KEY) as client:
        http = client._http
    assert http.is_closed
    assert KEY not in repr(client)
