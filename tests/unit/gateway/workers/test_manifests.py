"""Every Kubernetes object that the gateway makes, and every one that the repository ships, is valid and careful."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from kubernetes_validate import ValidationError
from lightkube.resources.core_v1 import Pod, Secret

from lattice.core.errors import LatticeError
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.workers.driver_spec import KubernetesSpec, LocalSpec, Toleration, read_driver
from lattice.gateway.workers.drivers import CREDENTIAL, Launch
from lattice.gateway.workers.manifests import (
    GATEWAY_LABEL,
    GRACE_SECONDS,
    NAME_LABEL,
    USER,
    WORKER_NAME,
    credential_secret,
    pod_name,
    worker_pod,
)
from lattice.gateway.workers.slices import DRAIN_MS
from lattice.gateway.workers.views import HardwareBody
from lattice.runtime.worker.service import DRAIN_S
from tests.support.kube_schema import DEPLOY, VERSIONS, deploy_files, objects, require_valid, shipped

ROOT = Path(__file__).parents[4]
WORKER, GATEWAY = "wkr_01m80vrv6v885cx1ggez3czqh8", "gw_01m80vrv6v885cx1ggez3czqh8"
SECRET = "rlc_canary"
LAUNCH = Launch(
    worker_id=WORKER,
    credential=SECRET,
    gateway="http://lattice-gateway:8787",
    cores=4,
    memory_mib=8192,
    model="mdl_01m80vrv6v885cx1ggez3czqh8",
)
PLAIN = KubernetesSpec(image="lattice:0.1.0")
FULL = KubernetesSpec(
    image="images.example/lattice@sha256:" + "0" * 64,
    node_selector={"node.kubernetes.io/instance-type": "c8.xlarge", "disk": ""},
    tolerations=(
        Toleration(key="lattice", operator="Exists", effect="NoSchedule"),
        Toleration(key="spot", value="yes", effect="NoExecute", tolerationSeconds=60),
    ),
    runtime_class="gvisor",
    resources={"nvidia.com/gpu": 1},
    cache_mib=20480,
    image_pull_secrets=("pull",),
)
SPECS = pytest.mark.parametrize("spec", [PLAIN, FULL], ids=["plain", "full"])
NAME = pod_name(WORKER, "a1b2c3")


def made(spec: KubernetesSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pod and the secret."""
    return worker_pod(LAUNCH, spec, NAME, GATEWAY), credential_secret(LAUNCH, NAME, "uid-1", GATEWAY)


# --- what the gateway makes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@SPECS
def test_what_the_gateway_makes_is_valid(spec: KubernetesSpec, version: str) -> None:
    for manifest in made(spec):
        require_valid(manifest, version)
        with pytest.raises(ValidationError):
            require_valid(manifest | {"unknown": 1}, version)


@SPECS
def test_the_library_sends_all_of_it(spec: KubernetesSpec) -> None:
    pod, secret = made(spec)
    assert Pod.from_dict(pod).to_dict() == pod
    assert Secret.from_dict(secret).to_dict() == secret


@SPECS
def test_the_credential_is_in_the_secret_only(spec: KubernetesSpec) -> None:
    pod, secret = made(spec)
    assert SECRET not in repr(pod)
    (variable,) = pod["spec"]["containers"][0]["env"]
    reference = variable["valueFrom"]["secretKeyRef"]
    assert (variable["name"], reference["name"]) == (CREDENTIAL, secret["metadata"]["name"])
    assert secret["stringData"] == {reference["key"]: SECRET}
    (owner,) = secret["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", NAME, "uid-1")


@SPECS
def test_a_worker_may_do_nothing_but_compute(spec: KubernetesSpec) -> None:
    pod = made(spec)[0]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert [set(volume) for volume in pod["volumes"]] == [{"name", "emptyDir"}]


@SPECS
def test_it_gets_what_its_class_says_and_no_more(spec: KubernetesSpec) -> None:
    """Equal requests and limits: it is neither throttled by neighbours nor the first to be evicted."""
    pod = made(spec)[0]["spec"]
    (container,) = pod["containers"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert (resources["limits"]["cpu"], resources["limits"]["memory"]) == ("4", "8192Mi")
    assert all(resources["limits"][name] == str(count) for name, count in spec.resources.items())
    assert pod["volumes"][0]["emptyDir"] == {"sizeLimit": f"{spec.cache_mib}Mi"}
    arguments = dict(zip(container["args"][2::2], container["args"][3::2], strict=False))
    assert float(arguments["--cache-gb"]) * 1e9 < spec.cache_mib * 2**20
    assert float(arguments["--memory-gb"]) * 2**30 <= LAUNCH.memory_mib * 2**20
    assert arguments["--concurrency"] == "4"


def test_a_drain_fits_into_the_grace_and_nobody_but_the_fleet_restarts() -> None:
    pod = made(PLAIN)[0]["spec"]
    assert pod["terminationGracePeriodSeconds"] == GRACE_SECONDS > DRAIN_MS / 1000 + 2
    assert GRACE_SECONDS > DRAIN_S + 2, "two seconds are for the goodbye"
    assert pod["restartPolicy"] == "Never"


def test_plain_http_is_permitted_only_where_the_gateway_is_reached_by_it() -> None:
    from msgspec.structs import replace

    sealed = worker_pod(replace(LAUNCH, gateway="https://gateway.example"), PLAIN, NAME, GATEWAY)
    assert "--allow-plain-http" not in sealed["spec"]["containers"][0]["args"]
    assert "--allow-plain-http" in made(PLAIN)[0]["spec"]["containers"][0]["args"]


# --- what a class may say ------------------------------------------------------------------------------------


def test_a_class_says_local_processes_unless_it_says_pods() -> None:
    assert read_driver("{}") == read_driver("") == read_driver('{"kind": "local"}') == LocalSpec()
    assert read_driver('{"kind": "kubernetes", "image": "lattice:0.1.0"}') == PLAIN


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"kind": "kubernetes", "image": "a\\nb"}',
        '{"kind": "kubernetes", "image": "a", "privileged": true}',
        '{"kind": "kubernetes", "image": "a", "runtime_class": "A"}',
        '{"kind": "kubernetes", "image": "a", "runtime_class": "a\\n"}',
        '{"kind": "kubernetes", "image": "a", "node_selector": {"a b": "c"}}',
        '{"kind": "kubernetes", "image": "a", "node_selector": {"a": "%s"}}' % ("x" * 64),
        '{"kind": "kubernetes", "image": "a", "resources": {"memory": 1}}',
        '{"kind": "kubernetes", "image": "a", "cache_mib": 0}',
        '{"kind": "local", "image": "a"}',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(LatticeError) as caught:
        read_driver(text)
    assert caught.value.code == "driver_invalid"


def test_the_class_of_the_how_to_is_one_and_all_members_are_told() -> None:
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text("utf-8")
    body = HardwareBody.model_validate_json(re.search(r"```json\n(.*?)```", page, re.DOTALL)[1])  # type: ignore[index]
    assert isinstance(read_driver(json.dumps(body.driver)), KubernetesSpec)
    told = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert told == set(KubernetesSpec.__struct_fields__)


# --- what the repository ships -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", deploy_files(), ids=lambda path: path.name)
def test_shipped_files_are_valid(path: Path, version: str) -> None:
    found = objects(path)
    assert found
    for manifest in found:
        require_valid(manifest, version)
        namespace = manifest["metadata"].get("namespace", manifest["metadata"]["name"])
        assert namespace == "lattice"


def test_the_kustomization_lists_every_file() -> None:
    (listed,) = objects(DEPLOY / "kustomization.yaml")
    assert sorted(listed["resources"]) == [path.name for path in deploy_files()]


def test_the_role_is_bound_to_the_account_that_the_gateway_runs_as() -> None:
    binding, role = shipped("RoleBinding", "lattice-gateway"), shipped("Role", "lattice-gateway")
    pod = shipped("StatefulSet", "lattice-gateway")["spec"]["template"]["spec"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [pod["serviceAccountName"]]
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {"pods", "secrets"}
    assert [rule["verbs"] for rule in role["rules"] if "secrets" in rule["resources"]] == [["create"]]


def test_the_network_policy_names_the_labels_that_pods_have() -> None:
    policy, service = shipped("NetworkPolicy", "lattice-workers")["spec"], shipped("Service", "lattice-gateway")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= made(PLAIN)[0]["metadata"]["labels"].items()
    assert (sorted(policy["policyTypes"]), "ingress" in policy) == (["Egress", "Ingress"], False)
    gateway = policy["egress"][0]
    labels = shipped("StatefulSet", "lattice-gateway")["spec"]["template"]["metadata"]["labels"]
    assert gateway["to"] == [{"podSelector": {"matchLabels": labels}}]
    assert [port["port"] for port in gateway["ports"]] == [port["port"] for port in service["ports"]]
    assert service["selector"] == labels
    assert labels[NAME_LABEL] != WORKER_NAME
    assert GATEWAY_LABEL not in labels, "the gateway deletes unknown pods that have it"


def test_the_gateway_is_alone_on_its_volume_and_its_settings_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    stateful = shipped("StatefulSet", "lattice-gateway")["spec"]
    pod = stateful["template"]["spec"]
    (container,) = pod["containers"]
    assert stateful["replicas"] == 1
    assert [claim["spec"]["accessModes"] for claim in stateful["volumeClaimTemplates"]] == [["ReadWriteOnce"]]
    assert (pod["enableServiceLinks"], pod["securityContext"]["runAsUser"]) == (False, USER)
    for variable in container["env"]:
        assert variable["name"].removeprefix("LATTICE_GATEWAY_").lower() in GatewaySettings.model_fields
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = GatewaySettings()
    assert settings.kubernetes_config == "in-cluster"
    assert pod["terminationGracePeriodSeconds"] > settings.drain_seconds
    ports = [port["port"] for port in shipped("Service", "lattice-gateway")["spec"]["ports"]]
    assert ports == [settings.port] == [port["containerPort"] for port in container["ports"]]
    assert settings.kubernetes_gateway_url == f"http://lattice-gateway:{settings.port}"


def test_the_image_has_what_gateway_and_workers_need() -> None:
    text = (ROOT / "deploy" / "Containerfile").read_text("utf-8")
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    named = {each.strip() for each in re.search(r"\[([a-z,]+)\]", text)[1].split(",")}  # type: ignore[index]
    assert {"gateway", "encrypted", "kubernetes"} <= named <= extras
    assert re.search(rf"^USER {USER}$", text, re.MULTILINE)
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
