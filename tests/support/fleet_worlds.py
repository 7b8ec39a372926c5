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

from lightkube import AsyncClient, KubeConfig

from lattice.gateway.workers.drivers import CREDENTIAL, FleetDriver, Launch, LocalProcesses
from lattice.gateway.workers.kubernetes import KubernetesPods, open_cluster
from tests.support.kube_api import ADMIN_TOKEN, NAMESPACE, KubeApi, kube_api
from tests.support.kube_schema import shipped
from tests.support.kubelet import Kubelet, kubelet

IMAGE = "worker:test"
GATEWAY = "gw_test"
REAL_CLUSTER = "LATTICE_TEST_KUBECONFIG"
"""Holds the kubeconfig of a real API server on which the namespace may be used; its context is an administrator's."""

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

    def public(self) -> str:
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
    """Pods on the API server for tests."""

    def __init__(self, folder: Path, program: str, api: KubeApi, agent: Kubelet, driver: KubernetesPods) -> None:
        super().__init__(folder, program)
        self.api, self.agent, self.driver, self.folder = api, agent, driver, folder
        self.pods: KubernetesPods = driver
        self.spec = json.dumps({"kind": "kubernetes", "image": IMAGE})
        agent.images[IMAGE] = [sys.executable, "-c", self.code]

    def public(self) -> str:
        """Every body that was sent but secrets, too."""
        return super().public() + "".join(self.api.bodies) + json.dumps(self.api.all("pods"))

    async def refuse(self) -> None:
        """The API server forbids it."""
        self.api.failing["create", "pods"] = (403, "Forbidden")

    def another(self, gateway: str = GATEWAY) -> KubernetesPods:
        """A driver of a later process."""
        return KubernetesPods(open_cluster(str(self.api.kubeconfig(self.folder)), ""), gateway)


class ClusterWorld(World):
    """Pods on a real API server, run by the test's kubelet."""

    def __init__(self, folder: Path, program: str, agent: Kubelet, driver: KubernetesPods) -> None:
        super().__init__(folder, program)
        self.agent, self.driver = agent, driver
        self.spec = json.dumps({"kind": "kubernetes", "image": IMAGE})
        agent.images[IMAGE] = [sys.executable, "-c", self.code]

    async def refuse(self) -> None:
        """A namespace that does not exist."""
        config = os.environ[REAL_CLUSTER]
        self.driver = KubernetesPods(open_cluster(config, "lattice-not-there"), GATEWAY)


KINDS = ["local", "kubernetes", *(["cluster"] if os.environ.get(REAL_CLUSTER) else [])]


@asynccontextmanager
async def pod_world(folder: Path, program: str) -> AsyncIterator[PodWorld]:
    """An API server, a node and a driver that may do what the shipped role allows."""
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(kube_api(shipped("Role", "lattice-gateway")["rules"]))
        admin = AsyncClient(config=KubeConfig.from_file(api.kubeconfig(folder, ADMIN_TOKEN)))
        agent = await stack.enter_async_context(kubelet(admin, folder / "node", {}))
        driver = KubernetesPods(open_cluster(str(api.kubeconfig(folder)), ""), GATEWAY)
        world = PodWorld(folder, program, api, agent, driver)
        stack.push_async_callback(lambda: world.driver.close())
        yield world


@asynccontextmanager
async def _cluster_world(folder: Path, program: str) -> AsyncIterator[ClusterWorld]:
    config = os.environ[REAL_CLUSTER]
    admin = AsyncClient(config=KubeConfig.from_file(config), namespace=NAMESPACE)
    async with kubelet(admin, folder / "node", {}) as agent:
        first = KubernetesPods(open_cluster(config, NAMESPACE), GATEWAY)
        world = ClusterWorld(folder, program, agent, first)
        try:
            yield world
        finally:
            await world.driver.close()


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
        async with pod_world(folder, program) as pods:
            yield pods
    else:
        async with _cluster_world(folder, program) as cluster:
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
