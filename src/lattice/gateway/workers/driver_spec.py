"""What a hardware class's `driver` may say (pure): which fleet driver makes its machines, and how."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lattice.core.errors import LatticeError

_NAME = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"

ObjectName = Annotated[str, Meta(max_length=253, pattern=rf"\A{_NAME}\Z")]
LabelKey = Annotated[str, Meta(max_length=317, pattern=rf"\A({_NAME}/)?{_WORD}\Z")]
LabelValue = Annotated[str, Meta(max_length=63, pattern=rf"\A({_WORD})?\Z")]
ExtendedResource = Annotated[str, Meta(max_length=317, pattern=rf"\A{_NAME}/{_WORD}\Z")]
"""Has a domain, so that `cpu` and `memory`, which the class itself states, cannot be said twice."""
Image = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"\A\S+\Z")]


class Toleration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """As in a pod, member for member."""

    key: LabelKey | None = None
    operator: Annotated[str, Meta(pattern=r"\A(Exists|Equal)\Z")] | None = None
    value: LabelValue | None = None
    effect: Annotated[str, Meta(pattern=r"\A(NoSchedule|PreferNoSchedule|NoExecute)\Z")] | None = None
    tolerationSeconds: Annotated[int, Meta(ge=0)] | None = None


class LocalSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="local"):
    """Processes on the gateway's own machine."""


class KubernetesSpec(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="kubernetes"
):
    """Pods. `resources` are extended ones (`nvidia.com/gpu`); `cache_mib` is disk for programs and keys."""

    image: Image
    node_selector: dict[LabelKey, LabelValue] = {}
    tolerations: tuple[Toleration, ...] = ()
    runtime_class: ObjectName | None = None
    resources: dict[ExtendedResource, Annotated[int, Meta(ge=1, le=1024)]] = {}
    cache_mib: Annotated[int, Meta(ge=64, le=2**30)] = 8192
    image_pull_secrets: tuple[ObjectName, ...] = ()


DriverSpec = LocalSpec | KubernetesSpec


def read_driver(text: str) -> DriverSpec:
    """A class's `driver` as it is stored; empty means local processes. Raises `driver_invalid`, which names the member.

    Limits of lengths and shapes are those of Kubernetes's names and labels.
    """
    if text.strip() in ("", "{}"):
        return LocalSpec()
    try:
        spec: DriverSpec = msgspec.json.decode(text, type=DriverSpec)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise LatticeError("driver_invalid", f"The class's `driver`: {error}.") from None
    return spec
