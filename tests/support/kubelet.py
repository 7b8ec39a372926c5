"""Runs the pods of a namespace as processes of this machine: a scheduler and a node's agent, through the API only.

So it works on any API server, a real one too. No container: image names stand for commands, and limits, users and
read-only file systems are not enforced.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from lightkube import AsyncClient
from lightkube.core.exceptions import ApiError
from lightkube.resources.core_v1 import Pod, PodBinding, PodStatus, Secret
from lightkube.types import PatchType

NODE = "node-of-tests"


class Kubelet:
    """`images` maps an image to what its `command` is here."""

    def __init__(self, client: AsyncClient, folder: Path, images: dict[str, list[str]]) -> None:
        self.client: Any = client
        self.folder, self.images = folder, images
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.exits: dict[str, int] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._going: dict[str, asyncio.Event] = {}

    def names(self) -> list[str]:
        """Of all pods that it has seen."""
        return list(self._tasks)

    async def run(self) -> None:
        """List and watch, for ever."""
        while True:
            with suppress(httpx2.HTTPError):
                found = self.client.list(Pod)
                async for pod in found:
                    self._see(pod)
                async for kind, pod in self.client.watch(Pod, resource_version=found.resourceVersion):
                    if kind != "DELETED":
                        self._see(pod)
            await asyncio.sleep(0.02)

    def _see(self, pod: Any) -> None:
        name = pod.metadata.name
        going = self._going.setdefault(name, asyncio.Event())
        if pod.metadata.deletionTimestamp is not None:
            going.set()
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(self._serve(pod, going))

    async def _serve(self, pod: Any, going: asyncio.Event) -> None:
        """One pod, from its binding to its end."""
        name, image = pod.metadata.name, pod.spec.containers[0].image
        with suppress(ApiError):  # deleted meanwhile
            await self._bind(name)
            if image in self.images and not going.is_set():
                status = await self._process(pod, going)
                self.exits[name] = status
                ended = {"terminated": {"exitCode": status, "reason": "Completed" if status == 0 else "Error"}}
                await self._say(pod, "Succeeded" if status == 0 else "Failed", ended)
            else:
                await self._say(pod, "Pending", {"waiting": {"reason": "ErrImagePull"}})
                await going.wait()
        if going.is_set():
            with suppress(ApiError):
                await self.client.delete(Pod, name, grace_period=0)

    async def _process(self, pod: Any, going: asyncio.Event) -> int:
        command, environment = await self._command(pod)
        log = (self.folder / f"{pod.metadata.name}.log").open("ab")
        with log:
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.processes[pod.metadata.name] = process
        try:
            await self._say(pod, "Running", {"running": {}})
            ending = asyncio.create_task(self._end(process, going, pod.spec.terminationGracePeriodSeconds))
            status = await process.wait()
            ending.cancel()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return status if status >= 0 else 128 - status

    async def _end(self, process: asyncio.subprocess.Process, going: asyncio.Event, grace: int) -> None:
        await going.wait()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(grace)
        process.send_signal(signal.SIGKILL)

    async def _command(self, pod: Any) -> tuple[list[str], dict[str, str]]:
        container = pod.spec.containers[0]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        for each in container.env:
            environment[each.name] = each.value if each.value is not None else await self._secret(each.valueFrom)
        arguments = [self._mounted(pod, each) for each in container.args]
        return [*self.images[container.image], *arguments], environment

    async def _secret(self, source: Any) -> str:
        """A container waits for the secrets that it names."""
        async with asyncio.timeout(10):
            while True:
                try:
                    secret = await self.client.get(Secret, source.secretKeyRef.name)
                    return base64.b64decode(secret.data[source.secretKeyRef.key]).decode()
                except ApiError as error:
                    if error.status.code != 404:
                        raise
                await asyncio.sleep(0.02)

    def _mounted(self, pod: Any, argument: str) -> str:
        for mount in pod.spec.containers[0].volumeMounts:
            if argument == mount.mountPath:
                path = self.folder / pod.metadata.name / mount.name
                path.mkdir(parents=True, exist_ok=True)
                return str(path)
        return argument

    async def _bind(self, name: str) -> None:
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        with suppress(msgspec.ValidationError):  # the answer is a Status, and the library takes it for a binding
            await self.client.create(PodBinding.from_dict({"metadata": {"name": name}, "target": target}), name)

    async def _say(self, pod: Any, phase: str, state: dict[str, Any]) -> None:
        container = pod.spec.containers[0]
        said = {"name": container.name, "image": container.image, "imageID": "", "ready": False, "restartCount": 0}
        status = {"status": {"phase": phase, "containerStatuses": [said | {"state": state}]}}
        await self.client.patch(PodStatus, pod.metadata.name, status, patch_type=PatchType.MERGE)

    async def close(self) -> None:
        """End every process."""
        for task in self._tasks.values():
            task.cancel()
        ended = await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        assert not [each for each in ended if isinstance(each, Exception)], ended


@asynccontextmanager
async def kubelet(client: AsyncClient, folder: Path, images: dict[str, list[str]]) -> AsyncIterator[Kubelet]:
    """One that runs until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    agent = Kubelet(client, folder, images)
    running = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await agent.close()
        await client.close()
