"""What only pods can do: watches that end, requests that fail, pods that others delete or an earlier gateway left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from lightkube.resources.core_v1 import Pod, Secret

from lattice.core.errors import LatticeError
from lattice.gateway.workers import kubernetes, manifests
from lattice.gateway.workers.kubernetes import open_cluster
from tests.support.fleet_worlds import CRASH, KINDS, STEADY, ApiWorld, PodWorld, api_world, open_world, running, until
from tests.support.kube_schema import shipped


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "GRACE_SECONDS", 1)
    monkeypatch.setattr(kubernetes, "RETRY_SECONDS", 0.05)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ApiWorld]:
    async with api_world(tmp_path, STEADY) as opened:
        yield opened


@pytest.fixture(params=[kind for kind in KINDS if kind != "local"])
async def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PodWorld]:
    """On a real API server too, where there is one."""
    async with open_world(request.param, tmp_path, STEADY) as opened:
        assert isinstance(opened, PodWorld)
        yield opened


async def gone(world: PodWorld, resource: type) -> None:
    async with asyncio.timeout(20):
        while await world.objects(resource):
            await asyncio.sleep(0.05)


async def test_the_secret_belongs_to_the_pod_and_goes_with_it(anywhere: PodWorld) -> None:
    await anywhere.start()
    await anywhere.reported(1)
    (pod,), (secret,) = await anywhere.objects(), await anywhere.objects(Secret)
    assert [owner.uid for owner in secret.metadata.ownerReferences] == [pod.metadata.uid]
    await anywhere.driver.stop("wkr_1")
    await gone(anywhere, Pod)
    await gone(anywhere, Secret)


async def test_a_pod_that_somebody_else_deletes_has_exited_once(anywhere: PodWorld) -> None:
    await anywhere.start()
    await anywhere.reported(1)
    (pod,) = await anywhere.objects()
    await anywhere.agent.client.delete(Pod, pod.metadata.name)
    await until(lambda: anywhere.exits == ["wkr_1"])
    await gone(anywhere, Pod)


async def test_a_later_gateway_deletes_what_the_earlier_one_left_and_nobody_elses(anywhere: PodWorld) -> None:
    """The earlier one is killed: nobody closes it. Its restarted workers have pods of their own."""
    other = anywhere.another("gw_other")
    await anywhere.start("wkr_left")
    (left,) = await anywhere.reported(1)
    await other.start(anywhere.launch("wkr_other", "rlc_other"), anywhere.exits.append)
    await anywhere.reported(2)
    assert anywhere.driver._looking is not None
    anywhere.driver._looking.cancel()
    later = anywhere.another()
    await later.resume()
    await later.start(anywhere.launch("wkr_left", "rlc_new"), anywhere.exits.append)
    await until(lambda: not running(left["pid"]))
    await anywhere.reported(3)
    async with asyncio.timeout(20):
        while len(pods := await anywhere.objects()) > 2:
            await asyncio.sleep(0.05)
    assert {pod.metadata.labels[manifests.WORKER_LABEL] for pod in pods} == {"wkr_left", "wkr_other"}
    assert anywhere.exits == []
    for driver in (other, later):
        await driver.close()
    await gone(anywhere, Pod)


async def test_pods_that_ended_are_not_left_behind(tmp_path: Path) -> None:
    async with api_world(tmp_path, CRASH) as world:
        await world.start()
        await until(lambda: world.exits == ["wkr_1"])
        await gone(world, Pod)
        assert list(world.agent.exits.values()) == [7]


async def test_a_watch_that_is_too_old_begins_anew_and_misses_no_exit(world: ApiWorld) -> None:
    await world.start()
    await world.reported(1)
    lists = world.api.requests.count(("list", "pods"))
    (pod,) = world.api.all("pods")
    del world.api.objects["pods", pod["metadata"]["name"]]  # the event itself is among what is forgotten
    world.api.version += 1
    await world.api.forget()
    await until(lambda: world.exits == ["wkr_1"])
    assert world.api.requests.count(("list", "pods")) > lists


async def test_an_exit_while_the_api_is_away_is_told_when_it_is_back(world: ApiWorld) -> None:
    await world.start()
    await world.reported(1)
    for verb in ("list", "watch", "delete"):
        world.api.failing[verb, "pods"] = (503, "ServiceUnavailable")
    world.api.cut()
    await world.driver.stop("wkr_1")
    await until(lambda: world.api.requests.count(("list", "pods")) > 3)
    assert world.exits == []
    world.api.failing.clear()
    await until(lambda: world.exits == ["wkr_1"])
    await gone(world, Pod)


async def test_a_watch_that_hangs_is_not_believed_for_ever(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "RELIST_SECONDS", 0.3)
    await world.start()
    await world.reported(1)
    world.api.mute = True
    (pod,) = world.api.all("pods")
    del world.api.objects["pods", pod["metadata"]["name"]]
    await until(lambda: world.exits == ["wkr_1"])
    world.api.mute = False


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(body=b"<html>", status=502, content_type="text/html"),
        web.Response(body=b"<html>", status=200, content_type="text/html"),
        web.Response(body=b"[]", status=500, content_type="application/json"),
        web.Response(body=b"{}", status=200, content_type="application/json"),
        web.Response(body=b"no json", status=403, content_type="application/json"),
    ],
    ids=lambda answer: f"{answer.status} {answer.body.decode()}",
)
async def test_what_is_no_answer_of_kubernetes_is_outlived(world: ApiWorld, answer: web.Response) -> None:
    """A proxy before the cluster says something of its own: starts fail as starts do, and exits are told later."""
    await world.start()
    await world.reported(1)
    world.api.garbled = answer
    world.api.cut()
    with pytest.raises(OSError):
        await world.start("wkr_2", "rlc_canary-two")
    await world.driver.stop("wkr_1")
    await until(lambda: world.api.requests.count(("garbled", "")) > 4)
    assert not world.driver.alive("wkr_2")
    world.api.garbled = None
    await until(lambda: world.exits == ["wkr_1"])
    await gone(world, Pod)


async def test_a_secret_that_is_refused_leaves_no_pod_and_no_trace_in_the_log(world: ApiWorld) -> None:
    world.api.failing["create", "secrets"] = (403, "Forbidden")
    with structlog.testing.capture_logs() as logs, pytest.raises(OSError):
        await world.start()
    await gone(world, Pod)
    (entry,) = [each for each in logs if each["event"] == "pod_not_made"]
    assert (entry["worker"], entry["code"], entry["reason"]) == ("wkr_1", 403, "Forbidden")
    assert "canary" not in repr(logs)
    assert "token-of" not in repr(logs)
    assert world.exits == []


async def test_a_pod_whose_image_cannot_be_had_can_be_stopped(world: ApiWorld) -> None:
    world.agent.images.clear()
    with structlog.testing.capture_logs() as logs:
        await world.start()
        await until(lambda: logs)
    assert [(each["event"], each["reason"]) for each in logs] == [("pod_waits", "ErrImagePull")]
    assert world.driver.alive("wkr_1")
    await world.driver.stop("wkr_1")
    await until(lambda: world.exits == ["wkr_1"])


async def test_the_role_allows_what_the_driver_does_and_no_more(world: ApiWorld) -> None:
    await world.driver.resume()
    await world.start()
    await world.reported(1)
    await world.driver.stop("wkr_1")
    await until(lambda: world.exits)
    rules = shipped("Role", "lattice-gateway")["rules"]
    allowed = {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
    assert set(world.api.requests) == allowed


@pytest.mark.parametrize("content", ["", "{}", "users: [", "current-context: x\ncontexts: []\nclusters: []\n"])
def test_a_broken_kubeconfig_is_refused_without_quoting_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content + "# secret-canary")
    with pytest.raises(LatticeError) as caught:
        open_cluster(str(path), "")
    assert caught.value.code == "config_invalid"
    assert "canary" not in str(caught.value)
    with pytest.raises(LatticeError, match="config_invalid"):
        open_cluster("in-cluster", "")
