"""The JSON of workers, hardware classes and what they cost."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, Field, StringConstraints

from lattice.gateway.api.views import MAX_MICRO, Body, Printable
from lattice.gateway.workers.hardware import MAX_PRICE, HardwareClass
from lattice.gateway.workers.rows import WorkerRow

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=100), Printable]


class NewWorkersBody(Body):
    """`POST /v1/encrypted-models/{id}/workers`. Without a class: the model's own setting, or the cheapest."""

    hardware_class: ClassName | None = None
    count: Annotated[int, Field(ge=1, le=16, strict=True)] = 1


class WorkerView(BaseModel):
    """A worker session. `billed_micro` is what its observed active time has cost so far.

    `next_version` is loaded beside `version` and takes its place when no query waits for that any more;
    `failed_version` could not be loaded.
    """

    id: str
    model: str
    version: int
    next_version: int | None
    failed_version: int | None
    hardware_class: str
    state: str
    reason: str | None
    micro_per_second: int
    billed_ms: int
    billed_micro: int
    held_micro: int
    restarts: int
    started_at_ms: int
    active_at_ms: int | None
    last_seen_ms: int | None
    paid_until_ms: int | None
    ended_at_ms: int | None

    @classmethod
    def of(cls, row: WorkerRow) -> WorkerView:
        """The view of a row."""
        members = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        return cls(**members, model=row.model_id, micro_per_second=row.price_micro_per_second)


class NewWorkerView(WorkerView):
    """A worker that was just started; `credential` only for one of class `own`, which its provider starts."""

    credential: str | None = None


class NewWorkersView(BaseModel):
    """The workers that were started."""

    data: list[NewWorkerView]


class HardwareBody(Body):
    """`PUT /v1/hardware-classes/{name}`."""

    micro_per_second: Annotated[int, Field(ge=0, le=MAX_PRICE, strict=True)]
    cores: Annotated[int, Field(ge=1, le=4096, strict=True)]
    memory_mib: Annotated[int, Field(ge=1, le=2**40, strict=True)]
    driver: dict[str, Any] = Field(default_factory=dict)


class HardwareView(BaseModel):
    """A hardware class."""

    name: str
    micro_per_second: int
    cores: int
    memory_mib: int
    driver: dict[str, Any]

    @classmethod
    def of(cls, row: HardwareClass) -> HardwareView:
        """The view of a row."""
        return cls(**msgspec.structs.asdict(row) | {"driver": msgspec.json.decode(row.driver)})


class HardwareList(BaseModel):
    """Every class, the cheapest first."""

    data: list[HardwareView]


class StatementView(BaseModel):
    """What an account's workers cost: now by the second, and all together so far.

    `remaining_seconds` is how long the balance lasts at the current rate, what is set aside included; null at rest.
    """

    account: str
    available_micro: int
    held_micro: int
    micro_per_second: int
    remaining_seconds: int | None
    worker_ms: int
    worker_micro: int
    other_micro: int
    granted_micro: int
    workers: list[WorkerView]


class TopUpBody(Body):
    """`POST /v1/credits/top-ups`. `account` is for an administrator."""

    amount_micro: Annotated[int, Field(ge=1, le=MAX_MICRO, strict=True)]
    account: Annotated[str, StringConstraints(pattern=r"^acc_[0-9a-z]{26}$")] | None = None


class TopUpView(BaseModel):
    """The balance after a top-up."""

    account: str
    amount_micro: int
    available_micro: int
    held_micro: int
