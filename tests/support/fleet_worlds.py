"""One world for each fleet driver, in which a contract test starts workers that run a program of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from lightkube import AsyncClient, KubeConfig
from lightkube.resources.core_v1 import Pod, ServiceAccountToken

from lattice.gateway.workers.drivers import CREDENTIAL, FleetDriver, Launch, LocalProcesses
from lattice.gateway.workers.kubernetes import KubernetesPods, open_cluster
from lattice.gateway.workers.manifests import NAME_LABEL, WORKER_NAME
from tests.support.kube_api import ADMIN_TOKEN, NAMESPACE, KubeApi, kube_api
from tests.support.kube_schema import shipped
from tests.support.kubelet import Kubelet, kubelet

IMAGE = "worker:test"
GATEWAY = "gw_test"
REAL_CLUSTER = "LATTICE_TEST_KUBECONFIG"
"""Holds an administrator's kubeconfig of a real API server to which deploy/kubernetes has been applied."""

REPORT = f"""
import json, os, signal, sys, time
report = {{"argv": sys.argv[1:], "credential": os.environ[{CREDENTIAL!r}], "pid": os.getpid()}}
with open(REPORTS, "a") as file:
    file.write(json.dumps(report) + chr(10))
"""
STEADY = REPORT + "signal.signal(signal.SIGTERM, lambda *_: os._exit(0))\nwhile True: time.sleep(0.01)\n"
STUBBORN = REPORT + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(0.01)\n"
CRASH = REPORT + "os._exit(7)\n"


class World:
    """A driver whose workers all run one program; what they reported, and what a stranger could read."""

    def __init__(self, folder: Path, program: str) -> None:
        self.reports_path = folder / "reports"
        self.code = f"REPORTS = {str(self.reports_path)!r}\n" + program
        self.exits: list[str] = []
        self.driver: FleetDriver
        self.spec = "{}"

    def launch(self, worker: str = "wkr_1", credential: str = "rlc_canary-one", **changed: Any) -> Launch:
        """A worker to start."""
        given = {"gateway": "http://127.0.0.1:9", "cores": 1, "memory_mib": 64, "model": "mdl_1", "driver": self.spec}
        return Launch(worker_id=worker, credential=credential, **given | changed)

    async def start(self, worker: str = "wkr_1", credential: str = "rlc_canary-one") -> None:
        """Start it; its exits are counted."""
        await self.driver.start(self.launch(worker, credential), self.exits.append)

    def reports(self) -> list[dict[str, Any]]:
        """One for each process that ran so far."""
        text = self.reports_path.read_text() if self.reports_path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def reported(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many."""
        await until(lambda: len(self.reports()) >= count)
        return self.reports()

    async def public(self) -> str:
        """What others can read: command lines, and every object of the cluster that is no secret."""
        pids = [report["pid"] for report in self.reports() if Path(f"/proc/{report['pid']}").exists()]
        return "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)

    async def refuse(self) -> None:
        """From now on nothing can be started."""
        raise NotImplementedError


class LocalWorld(World):
    """Child processes."""

    def __init__(self, folder: Path, program: str) -> None:
        super().__init__(folder, program)
        self.folder = folder / "workers"
        self.driver = LocalProcesses(self.folder, ("-c", self.code))

    async def refuse(self) -> None:
        """Their folder cannot be made."""
        self.folder.write_text("a file is in the way")


class PodWorld(World):
    """Pods, which the test's kubelet runs; the driver has the account of the gateway."""

    def __init__(self, folder: Path, program: str, agent: Kubelet, config: Path) -> None:
        super().__init__(folder, program)
        self.agent, self.config = agent, config
        self.driver: KubernetesPods = self.another()
        self.spec = json.dumps({"kind": "kubernetes", "image": IMAGE})
        agent.images[IMAGE] = [sys.executable, "-c", self.code]

    def another(self, gateway: str = GATEWAY, namespace: str = NAMESPACE) -> KubernetesPods:
        """A driver as another process would have it."""
        return KubernetesPods(open_cluster(str(self.config), namespace), gateway)

    async def objects(self, resource: Any = Pod) -> list[Any]:
        """What is in the namespace."""
        return [each async for each in self.agent.client.list(resource, labels={NAME_LABEL: WORKER_NAME})]

    async def public(self) -> str:
        """Every pod too."""
        return await super().public() + repr([each.to_dict() for each in await self.objects()])

    async def refuse(self) -> None:
        """A namespace in which the account may do nothing."""
        await self.driver.close()
        self.driver = self.another(namespace="default")


class ApiWorld(PodWorld):
    """On the API server for tests."""

    def __init__(self, folder: Path, program: str, agent: Kubelet, config: Path, api: KubeApi) -> None:
        super().__init__(folder, program, agent, config)
        self.api = api

    async def public(self) -> str:
        """Every body that was sent, but secrets, too."""
        return await super().public() + "".join(self.api.bodies)


KINDS = ["local", "kubernetes", *(["cluster"] if os.environ.get(REAL_CLUSTER) else [])]


@asynccontextmanager
async def api_world(folder: Path, program: str) -> AsyncIterator[ApiWorld]:
    """An API server for tests and a node; the driver may do what the shipped role allows."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(kube_api(shipped("Role", "lattice-gateway")["rules"]))
        admin = AsyncClient(config=KubeConfig.from_file(api.kubeconfig(folder, ADMIN_TOKEN)))
        agent = await stack.enter_async_context(kubelet(admin, folder / "node", {}))
        world = ApiWorld(folder, program, agent, api.kubeconfig(folder), api)
        stack.push_async_callback(lambda: world.driver.close())
        yield world


@asynccontextmanager
async def cluster_world(folder: Path, program: str) -> AsyncIterator[PodWorld]:
    """A real API server, with a token of the gateway's own service account."""
    admin: Any = AsyncClient(config=KubeConfig.from_file(os.environ[REAL_CLUSTER]), namespace=NAMESPACE)
    request = ServiceAccountToken.from_dict({"metadata": {}, "spec": {"audiences": []}})
    made = await admin.create(request, "lattice-gateway")
    config = yaml.safe_load(Path(os.environ[REAL_CLUSTER]).read_text())
    for user in config["users"]:
        user["user"] = {"token": made.status.token}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    async with kubelet(admin, folder / "node", {}) as agent:
        world = PodWorld(folder, program, agent, path)
        try:
            yield world
        finally:
            await world.driver.close()
            left = [admin.delete(Pod, name, grace_period=0) for name in agent.names()]
            await asyncio.gather(*left, return_exceptions=True)


@asynccontextmanager
async def open_world(kind: str, folder: Path, program: str) -> AsyncIterator[World]:
    """The world of a kind."""
    if kind == "local":
        world = LocalWorld(folder, program)
        try:
            yield world
        finally:
            await world.driver.close()
    elif kind == "kubernetes":
        async with api_world(folder, program) as pods:
            yield pods
    else:
        async with cluster_world(folder, program) as cluster:
            yield cluster


async def until(condition: Any, seconds: float = 20) -> None:
    """Wait for something that happens elsewhere."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
