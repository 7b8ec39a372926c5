"""What admission, settlement and ending of a work are told and what they answer."""

from __future__ import annotations

from typing import Literal

import msgspec

from lattice.gateway.idempotency import Claim, StoredReply

EndState = Literal["failed", "cancelled", "expired"]


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """A work that asks to run. `amount_micro` is the most that it may cost; 0 on the caller's own machine.

    `leased`: a runtime's poll is waiting, so admission and lease are one transaction (attempt 1); otherwise the work is
    queued with attempt 0 until `works.lease`.
    """

    work_id: str
    account_id: str
    key_id: str
    runtime_id: str
    gateway_id: str
    model: str
    task: str
    sealing: str
    envelope_hash: bytes
    amount_micro: int
    now_ms: int
    deadline_ms: int
    lease_expires_ms: int
    leased: bool = True
    spend_cap_micro: int | None = None
    claim: Claim | None = None


class Admitted(msgspec.Struct, frozen=True):
    """Either the attempt under which the work now runs, or the reply that its idempotency key already has."""

    attempt: int
    replay: StoredReply | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """A work that answered. `result` is the sealed reply to keep under `claim`, None for a reply that is not kept."""

    work_id: str
    attempt: int
    cost_micro: int
    prompt_tokens: int
    completion_tokens: int
    now_ms: int
    claim: Claim | None = None
    result: bytes | None = None
    status: int = 200


class Settled(msgspec.Struct, frozen=True):
    """What was charged: the cost, but never more than was held."""

    charged_micro: int


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """A work that ends without an answer; nothing is charged.

    Its idempotency key becomes free again, since nothing was charged and the caller was told, unless `keep_claim` says
    that an answer may have existed and is lost.
    """

    work_id: str
    attempt: int
    state: EndState
    reason: str
    now_ms: int
    keep_claim: bool = False
