"""Workers as pods of a Kubernetes cluster.

Over `lightkube` (extra `kubernetes`): it brings 6 MB over httpx2 and msgspec, which are here anyway; kr8s needs
httpx, and kubernetes_asyncio brings 23 MB of generated code. TLS, kubeconfig and token renewal are the library's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
import structlog
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.core.exceptions import ConfigError as ClusterConfigError
from lightkube.resources.core_v1 import Pod, Secret

from lattice.core.errors import LatticeError
from lattice.gateway.workers.driver_spec import KubernetesSpec, read_driver
from lattice.gateway.workers.drivers import Launch
from lattice.gateway.workers.manifests import GATEWAY_LABEL, WORKER_LABEL, credential_secret, pod_name, worker_pod

_log = structlog.get_logger("lattice.gateway.kubernetes")

IN_CLUSTER = "in-cluster"
RELIST_SECONDS = 60.0
"""A watch may hang without a word or miss an end: everything is looked at anew this often."""
RETRY_SECONDS = 2.0
CLOSE_SECONDS = 5.0
_ENDED = ("Succeeded", "Failed")
_UNREACHABLE = (httpx2.HTTPError, ClusterConfigError, OSError, msgspec.MsgspecError, ValueError, KeyError)
"""The cluster does not answer, refuses, or something in front of it answers: the last three are what the library then
throws over a body or a header that is no Kubernetes answer."""
_USUAL = ("ContainerCreating", "PodInitializing")


def open_cluster(config: str, namespace: str) -> AsyncClient:
    """A client of the cluster that a kubeconfig names, or of the one that this gateway runs in.

    Raises `config_invalid`, which quotes nothing of the file.
    """
    try:
        found = KubeConfig.from_service_account() if config == IN_CLUSTER else KubeConfig.from_file(config)
        return AsyncClient(config=found, namespace=namespace or None)
    except Exception as error:
        # Whatever a broken file makes its readers throw, the file may hold keys.
        said = f"The setting `kubernetes_config`: no cluster can be reached with it ({type(error).__name__})."
        raise LatticeError("config_invalid", said) from None


@dataclass
class _Started:
    """A pod that this process made, or is making while `made` is false."""

    name: str
    on_exit: Callable[[str], None]
    made: bool = False
    stopping: bool = False
    stuck: str = ""


class KubernetesPods:
    """Each worker is a pod. All pods with the gateway's label are this driver's: those it does not know, it deletes."""

    def __init__(self, client: AsyncClient, gateway_id: str, gateway_url: str = "") -> None:
        self._client: Any = client  # its overloads do not take its own resource classes
        self._gateway_id, self._gateway_url = gateway_id, gateway_url
        self._pods: dict[str, _Started] = {}
        self._looking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the driver's interface ----------------------------------------------------------------------------

    async def start(self, launch: Launch, on_exit: Callable[[str], None]) -> None:
        """Make the pod, then the secret that it waits for and owns."""
        spec = read_driver(launch.driver)
        if not isinstance(spec, KubernetesSpec):
            raise OSError("The hardware class is not of kind kubernetes.")
        self._look_on()
        name = pod_name(launch.worker_id, secrets.token_hex(3))
        started = self._pods[launch.worker_id] = _Started(name, on_exit)
        try:
            await self._make(launch, spec, started)
        except _UNREACHABLE as error:
            # Not chained: the request that it holds has the credential in its body.
            self._forget(launch.worker_id, started)
            _log.error("pod_not_made", worker=launch.worker_id, **_why(error))
            self._spawn(self._delete(name))
            raise OSError("The cluster did not take the worker's pod.") from None
        except BaseException:
            self._forget(launch.worker_id, started)
            self._spawn(self._delete(name))
            raise

    async def stop(self, worker_id: str) -> None:
        """SIGTERM now, SIGKILL after the grace; where the cluster does not answer, again at the next look."""
        started = self._pods.get(worker_id)
        if started is not None:
            started.stopping = True
            await self._delete(started.name)

    def alive(self, worker_id: str) -> bool:
        """Whether there is a pod that has not ended, as of the last word from the cluster."""
        return worker_id in self._pods

    async def resume(self) -> None:
        """Delete what an earlier process of this gateway left, now and at each later look."""
        with suppress(*_UNREACHABLE):
            await self._relist()
        self._look_on()

    async def close(self) -> None:
        """Tell every pod to end, without waiting for it: one that is missed ends with its paid time."""
        names = [started.name for started in self._pods.values()]
        self._pods.clear()
        for task in [task for task in (self._looking, *self._tasks) if task is not None]:
            task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*(self._delete(name) for name in names))
        await self._client.close()

    # --- what happens in the cluster -----------------------------------------------------------------------

    async def _make(self, launch: Launch, spec: KubernetesSpec, started: _Started) -> None:
        if self._gateway_url:
            launch = msgspec.structs.replace(launch, gateway=self._gateway_url.rstrip("/"))
        pod = worker_pod(launch, spec, started.name, self._gateway_id)
        made = await self._client.create(Pod.from_dict(pod))
        if made.metadata is None or not made.metadata.uid:
            raise ValueError("no pod")
        uid = made.metadata.uid
        await self._client.create(Secret.from_dict(credential_secret(launch, started.name, uid, self._gateway_id)))
        started.made = True

    def _look_on(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_forever(), name="kubernetes")

    async def _look_forever(self) -> None:
        """List, then watch from there; begin anew when the watch is too old (410), broken, or a minute old."""
        while True:
            try:
                version = await self._relist()
                with suppress(TimeoutError):
                    async with asyncio.timeout(RELIST_SECONDS):
                        await self._watch(version)
            except _UNREACHABLE as error:
                _log.warning("cluster_unreachable", **_why(error))
                await asyncio.sleep(0.1 if _code(error) == 410 else RETRY_SECONDS)

    async def _relist(self) -> str:
        known = {started.name: worker for worker, started in self._pods.items() if started.made}
        found = self._client.list(Pod, labels={GATEWAY_LABEL: self._gateway_id})
        async for pod in found:
            known.pop(_name(pod), None)
            self._see(pod)
        for name, worker in known.items():
            self._gone(worker, name)
        return str(found.resourceVersion)

    async def _watch(self, version: str) -> None:
        labels = {GATEWAY_LABEL: self._gateway_id}
        watching = self._client.watch(
            Pod, labels=labels, resource_version=version, server_timeout=int(2 * RELIST_SECONDS) + 1
        )
        async for kind, pod in watching:
            if kind == "DELETED":
                self._gone(_worker(pod), _name(pod))
            else:
                self._see(pod)

    def _see(self, pod: Any) -> None:
        """A pod as it is now: delete it where it has ended, where it should, or where nobody knows it."""
        worker, name = _worker(pod), _name(pod)
        started = self._pods.get(worker)
        mine = started is not None and started.name == name
        ended = pod.status is not None and pod.status.phase in _ENDED
        if started is not None and mine:
            self._tell(started, worker, pod, ended)
        going = pod.metadata.deletionTimestamp is not None
        if not going and (ended or not mine or (started is not None and started.stopping)):
            self._spawn(self._delete(name))
        if ended:
            self._gone(worker, name)

    def _tell(self, started: _Started, worker: str, pod: Any, ended: bool) -> None:
        """For the log: how it ended, and once why it does not begin."""
        if ended:
            _log.info("pod_ended", worker=worker, pod=started.name, **_outcome(pod))
        elif (stuck := _stuck(pod)) != started.stuck:
            started.stuck = stuck
            if stuck:
                _log.warning("pod_waits", worker=worker, pod=started.name, reason=stuck)

    def _gone(self, worker: str, name: str) -> None:
        started = self._pods.get(worker)
        if started is not None and started.name == name:
            del self._pods[worker]
            started.on_exit(worker)

    def _forget(self, worker: str, started: _Started) -> None:
        if self._pods.get(worker) is started:
            del self._pods[worker]

    async def _delete(self, name: str) -> None:
        try:
            await self._client.delete(Pod, name)
        except _UNREACHABLE as error:
            if _code(error) != 404:
                _log.warning("pod_not_deleted", pod=name, **_why(error))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _name(pod: Any) -> str:
    return str(pod.metadata.name)


def _worker(pod: Any) -> str:
    return str((pod.metadata.labels or {}).get(WORKER_LABEL, ""))


def _code(error: BaseException) -> int:
    if isinstance(error, ApiError):
        return int(error.status.code or 0)
    return error.response.status_code if isinstance(error, httpx2.HTTPStatusError) else 0


def _why(error: BaseException) -> dict[str, Any]:
    """For the log. The server's message is left out: one about a secret could quote it."""
    reason = error.status.reason if isinstance(error, ApiError) else None
    return {"error": type(error).__name__, "code": _code(error), "reason": reason}


def _outcome(pod: Any) -> dict[str, Any]:
    """Why it ended: the container's exit status, and what the kubelet says (OOMKilled, Evicted)."""
    states = [each.state.terminated for each in pod.status.containerStatuses or () if each.state is not None]
    last = next((each for each in states if each is not None), None)
    reason = pod.status.reason or (last.reason if last is not None else None)
    return {"phase": pod.status.phase, "reason": reason, "exit": last.exitCode if last is not None else None}


def _stuck(pod: Any) -> str:
    """Why it does not run yet, where that is not a matter of moments: no node has room, or its image cannot be had."""
    if pod.status is None:
        return ""
    for condition in pod.status.conditions or ():
        if (condition.type, condition.status) == ("PodScheduled", "False"):
            return str(condition.reason)
    waiting = [each.state.waiting for each in pod.status.containerStatuses or () if each.state is not None]
    reasons = [str(each.reason) for each in waiting if each is not None and each.reason not in _USUAL]
    return reasons[0] if reasons else ""
