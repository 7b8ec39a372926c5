"""Encrypted queries answered by real workers in pods: the gateway makes them, the test's kubelet runs them."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightkube.resources.core_v1 import Pod

from lattice.client.encrypted.query import QueryClient
from lattice.client.management import ManagementClient
from lattice.core.errors import LatticeError
from lattice.fhe import artefact
from lattice.fhe.run import Session
from lattice.gateway.workers.manifests import WORKER_LABEL
from lattice.runtime.worker.clock import LOADING_S
from tests.harness import GatewayClient, LiveGateway, running_gateway
from tests.processes import gateway_process
from tests.support.compiled import compiled
from tests.support.fleet_worlds import KINDS, STEADY, PodWorld, open_world, until
from tests.support.kube_api import NAMESPACE
from tests.support.worker_gateway import worker_gateway

NAME, CLASS, IMAGE = "tiny", "pods", "lattice:test"
SAMPLES = np.array([[0.5, -0.25, 0.125, 1.0], [1.0, 0.0, 0.5, -1.0]])
DRIVER = {"kind": "kubernetes", "image": IMAGE, "cache_mib": 64}
WORKER = [sys.executable, "-m", "lattice.cli.ctl"]


@pytest.fixture(params=[kind for kind in KINDS if kind != "local"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PodWorld]:
    """A cluster whose image `lattice:test` is this very source."""
    async with open_world(request.param, tmp_path, STEADY) as opened:
        assert isinstance(opened, PodWorld)
        opened.agent.images[IMAGE] = WORKER
        yield opened


@pytest.fixture
async def live(world: PodWorld, tmp_path: Path) -> AsyncIterator[LiveGateway]:
    """A gateway that has the cluster, with the account of the shipped role."""
    settings = {"kubernetes_config": str(world.config), "kubernetes_namespace": NAMESPACE}
    async with running_gateway(tmp_path / "gateway", **settings) as live:
        yield live


async def put_class(live: GatewayClient, driver: Any, name: str = CLASS) -> tuple[int, Any]:
    body = {"micro_per_second": 500, "cores": 1, "memory_mib": 512, "driver": driver}
    return await live.call("PUT", f"/v1/hardware-classes/{name}", body)


def deployed(live: GatewayClient, folder: Path) -> str:
    """A model that can be queried, credits for it, and a user's token."""
    model = folder / "tiny.lattice"
    artefact.save(compiled(), model)
    with ManagementClient(live.url, live.secret) as provider:
        provider.create_encrypted_model(NAME, weights_exposure="hosted")
        provider.wait_ready(NAME, provider.upload_model(NAME, model)["version"], timeout_s=60)
        provider.grant_credits(provider.key()["account"], 50_000_000, "test")
        return str(provider.tokens.create(NAME, "phone", user="alice")["secret"])


def ask(live: GatewayClient, folder: Path) -> tuple[Any, dict[str, Any]]:
    """Start a pod, query, stop; the answer and the worker's end."""
    token = deployed(live, folder)
    with (
        ManagementClient(live.url, live.secret) as provider,
        QueryClient(token, base_url=live.url, folder=folder / "user") as user,
    ):
        user.keys.ensure()
        with provider.workers.running(NAME, hardware_class=CLASS) as (worker,):
            answer = user.query(SAMPLES)
        return answer, provider.workers.get(worker["id"])


async def pods(world: PodWorld, count: int) -> list[Any]:
    async with asyncio.timeout(20):
        while len(found := await world.objects(Pod)) != count:
            await asyncio.sleep(0.05)
    return found


@pytest.mark.timeout(120)
async def test_a_query_is_answered_by_a_pod_that_is_gone_afterwards(
    live: LiveGateway, world: PodWorld, tmp_path: Path
) -> None:
    assert (await put_class(live, DRIVER))[0] == 200
    answer, ended = await asyncio.to_thread(ask, live, tmp_path)
    assert np.abs(answer.values - Session(compiled()).run(SAMPLES).values).max() < 1e-3
    assert (ended["state"], ended["reason"], ended["hardware_class"]) == ("stopped", "requested", CLASS)
    assert ended["billed_ms"] > 0
    await pods(world, 0)
    ran = [name for name in world.agent.names() if name.startswith(ended["id"].replace("_", "-"))]
    assert [world.agent.exits[name] for name in ran] == [0]
    assert "query.answered" in (world.agent.folder / f"{ran[0]}.log").read_text()
    audit = await live.audit()
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())


async def test_classes_whose_driver_means_nothing_are_refused(live: LiveGateway, tmp_path: Path) -> None:
    assert (await put_class(live, {}))[0] == 200
    assert (await put_class(live, {"kind": "local"}))[0] == 200
    for driver, named in (
        ({"kind": "nomad"}, "$.kind"),
        ({"kind": "kubernetes"}, "image"),
        ({"image": IMAGE}, "kind"),
        (DRIVER | {"cpu": 4}, "cpu"),
        (DRIVER | {"resources": {"cpu": 4}}, "resources"),
        (DRIVER | {"resources": {"nvidia.com/gpu": 0}}, "resources"),
        (DRIVER | {"node_selector": {"disk": "a b"}}, "node_selector"),
        (DRIVER | {"tolerations": [{"effect": "Never"}]}, "tolerations"),
        (DRIVER | {"image": "with space"}, "image"),
    ):
        status, said = await put_class(live, driver)
        assert (status, said["error"]) == (400, "driver_invalid"), driver
        assert named in said["message"]
    async with running_gateway(tmp_path / "without") as without:
        status, said = await put_class(without, DRIVER)
        assert (status, said["error"]) == (400, "driver_invalid")
        assert "LATTICE_GATEWAY_KUBERNETES_CONFIG" in said["message"]


async def test_a_gateway_with_a_broken_cluster_access_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(LatticeError, match="kubernetes_config"):
        async with running_gateway(tmp_path / "gateway", kubernetes_config=str(tmp_path / "none")):
            pass


async def test_a_pod_ends_by_itself_when_its_gateway_pays_no_more(world: PodWorld, tmp_path: Path) -> None:
    async with worker_gateway() as gateway:
        artefact.save(compiled(), tmp_path / "tiny.lattice")
        gateway.artefact = gateway.put((tmp_path / "tiny.lattice").read_bytes())
        gateway.paid_for_ms = 1500
        launch = world.launch(gateway=gateway.url, credential="rlc_test-credential", driver=json.dumps(DRIVER))
        await world.driver.start(launch, world.exits.append)
        await gateway.until(lambda: gateway.polls and gateway.polls[-1].active)
        gateway.paid_for_ms = 0
        gateway.wake()
        await until(lambda: world.exits == ["wkr_1"])
    assert list(world.agent.exits.values()) == [3]


async def test_a_pod_that_never_reaches_its_gateway_ends_by_itself(world: PodWorld) -> None:
    """It waits for a minute; here the same program waits for a second."""
    assert LOADING_S == 60
    hurried = "import lattice.runtime.worker.clock as c; c.LOADING_S = 1.0; from lattice.cli.ctl import main; main()"
    world.agent.images[IMAGE] = [sys.executable, "-c", hurried]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        launch = world.launch(gateway=f"http://127.0.0.1:{taken.getsockname()[1]}", driver=json.dumps(DRIVER))
        await world.driver.start(launch, world.exits.append)
        await until(lambda: world.exits == ["wkr_1"])
    assert list(world.agent.exits.values()) == [3]


async def test_a_gateway_that_was_killed_ends_the_pods_of_its_last_life(world: PodWorld, tmp_path: Path) -> None:
    """The next process with its folder deletes what runs and starts the worker again; its own end leaves nothing."""
    settings = {"kubernetes_config": str(world.config), "kubernetes_namespace": NAMESPACE}
    async with gateway_process(tmp_path / "process", **settings) as gateway:
        assert (await put_class(gateway.client, DRIVER))[0] == 200
        await asyncio.to_thread(deployed, gateway.client, tmp_path)
        with ManagementClient(gateway.client.url, gateway.client.secret) as provider:
            await asyncio.to_thread(provider.workers.start, NAME, hardware_class=CLASS)
        (left,) = await pods(world, 1)
        await gateway.kill()
        await gateway.up()
        async with asyncio.timeout(30):
            while [pod.metadata.name for pod in await world.objects()] in ([], [left.metadata.name]):
                await asyncio.sleep(0.05)
        (pod,) = await pods(world, 1)
        assert pod.metadata.name != left.metadata.name
        (row,) = (await gateway.client.call("GET", "/v1/workers"))[1]["data"]
        assert (row["id"], row["restarts"]) == (pod.metadata.labels[WORKER_LABEL], 0)
        assert await gateway.terminate() == 0
        await pods(world, 0)
