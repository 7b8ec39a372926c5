"""The Kubernetes objects of a worker (pure): its pod, and the secret with its credential, which the pod owns.

A bare pod and no Job: the fleet itself starts a crashed worker again, each time with a new credential. A Job's
controller would start another pod with the old one beside it, after an eviction for instance.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lattice.gateway.workers.driver_spec import KubernetesSpec
from lattice.gateway.workers.drivers import CREDENTIAL, Launch

GRACE_SECONDS = 15
"""Between SIGTERM and SIGKILL: longer than the drain reserve and a worker's goodbye after it."""
CACHE = "/cache"
USER = 10001
"""The image's user; any but root would do."""
LOGS_MIB = 64

NAME_LABEL = "app.kubernetes.io/name"
WORKER_NAME = "lattice-worker"
GATEWAY_LABEL = "lattice/gateway"
WORKER_LABEL = "lattice/worker"
MODEL_LABEL = "lattice/model"
_KEY = "credential"


def pod_name(worker_id: str, nonce: str) -> str:
    """Each start of a worker has a name of its own, since the pod before may still be on its way out."""
    return f"{worker_id.replace('_', '-')}-{nonce}"


def worker_pod(launch: Launch, spec: KubernetesSpec, name: str, gateway_id: str) -> dict[str, Any]:
    """The pod. It starts once its secret, of the same name, is there. Nothing in it is secret."""
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # else every service of the namespace is in its environment
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(launch, spec, name)],
        "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": f"{spec.cache_mib}Mi"}}],
    }
    if spec.node_selector:
        pod["nodeSelector"] = spec.node_selector
    if spec.tolerations:
        pod["tolerations"] = [msgspec.to_builtins(each) for each in spec.tolerations]
    if spec.runtime_class:
        pod["runtimeClassName"] = spec.runtime_class
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": each} for each in spec.image_pull_secrets]
    labels = _labels(launch, gateway_id)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": pod}


def credential_secret(launch: Launch, name: str, pod_uid: str, gateway_id: str) -> dict[str, Any]:
    """The secret. Kubernetes deletes it with the pod that owns it."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod_uid}
    metadata = {"name": name, "labels": _labels(launch, gateway_id), "ownerReferences": [owner]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "immutable": True,
        "stringData": {_KEY: launch.credential},
    }


def _container(launch: Launch, spec: KubernetesSpec, name: str) -> dict[str, Any]:
    disk = f"{spec.cache_mib + LOGS_MIB}Mi"
    amounts = {"cpu": str(launch.cores), "memory": f"{launch.memory_mib}Mi", "ephemeral-storage": disk}
    amounts |= {resource: str(count) for resource, count in spec.resources.items()}
    return {
        "name": "worker",
        "image": spec.image,
        "command": ["lattice-ctl"],
        "args": _arguments(launch, spec),
        "env": [{"name": CREDENTIAL, "valueFrom": {"secretKeyRef": {"name": name, "key": _KEY}}}],
        "resources": {"requests": amounts, "limits": amounts},
        "volumeMounts": [{"name": "cache", "mountPath": CACHE}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _arguments(launch: Launch, spec: KubernetesSpec) -> list[str]:
    """Half of the memory is for decoded keys; a quarter of the disk stays free for what comes before an eviction."""
    cache_gb = spec.cache_mib * 2**20 * 0.75 / 1e9
    arguments = ["worker", "run", "--gateway", launch.gateway, "--cache", CACHE, "--cache-gb", f"{cache_gb:.2f}"]
    arguments += ["--concurrency", str(launch.cores), "--memory-gb", f"{launch.memory_mib / 2048:.2f}"]
    return arguments + (["--allow-plain-http"] if launch.gateway.startswith("http:") else [])


def _labels(launch: Launch, gateway_id: str) -> dict[str, str]:
    return {
        NAME_LABEL: WORKER_NAME,
        "app.kubernetes.io/managed-by": "lattice-gateway",
        GATEWAY_LABEL: gateway_id,
        WORKER_LABEL: launch.worker_id,
        MODEL_LABEL: launch.model,
    }
