"""The relay protocol between a gateway and a runtime's daemon: messages, limits and the protocol's history.

Messages are MessagePack (bytes stay bytes) over ordinary HTTP POSTs that the daemon makes; the gateway never dials in.
Routes, all under the runtime credential: `/v1/relay/poll`, `/v1/relay/frames`, `/v1/relay/renew`, `/v1/relay/fail`.

A daemon keeps one poll open even while it is busy. Each poll names its session and acknowledges the last reply that it
got; opening a newer session ends older polls and gives back, at once, the work that was in an unacknowledged reply.
"""

from __future__ import annotations

import msgspec

PROTOCOL_VERSION = 1

PROTOCOL_HISTORY: dict[int, tuple[str, str]] = {
    1: ("2026-11-21", "Sessions, batched replies, leases with attempts, coalesced frames, results_url, cancel, drain."),
}

RELAY_MEDIA_TYPE = "application/vnd.lattice.relay+msgpack"

POLL_HOLD_MS = 20_000
"""How long the gateway holds an idle poll open."""

REACHABLE_MS = 45_000
"""A runtime is reachable while a poll is open or the last one ended less than this ago."""

LEASE_MS = 60_000
"""How long a lease lasts without a frame or a renewal."""

COALESCE_MS = 25
"""How long a daemon may hold back frames after a work's first one."""

MAX_RELAY_BODY = 32 * 1024 * 1024
MAX_FRAMES_PER_POST = 1024


class ModelOffer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A local model that the runtime serves. `digest` is the SHA-256 of its weights, hex, where the engine knows it."""

    id: str
    tasks: tuple[str, ...] = ("chat",)
    digest: str | None = None
    context: int | None = None
    default_max_output_tokens: int = 1024
    tools: bool = False


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the daemon says of itself at the start of a session and whenever it changes.

    `key_configs` are encoded signed key configurations (see `lattice.sealing.key_config`); `models[0]` is the default.
    """

    key_configs: tuple[bytes, ...]
    models: tuple[ModelOffer, ...]
    concurrency: int = 1
    version: str = ""


class PollRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /v1/relay/poll`. `ack` is the `seq` of the last reply received in this session, 0 before the first.

    `instance` is random per daemon process: a session of another instance means that the old process is gone, and
    with it everything that it was working on; a new session of the same instance goes on with its leases.
    """

    protocol: int
    session: str
    instance: str
    ack: int = 0
    announce: Announcement | None = None
    draining: bool = False


class LeasedWork(msgspec.Struct, frozen=True, omit_defaults=True):
    """Work handed to a runtime: the encoded envelope and the fencing token under which its frames are accepted."""

    work_id: str
    attempt: int
    envelope: bytes
    deadline_ms: int
    lease_ms: int = LEASE_MS


class WorkRef(msgspec.Struct, frozen=True):
    """A work and the attempt that is meant."""

    work_id: str
    attempt: int


class PollReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything the gateway has for the runtime, in one batch; empty when the poll was held and nothing came.

    `ended`: a newer session took over, stop polling. `drain`: the gateway restarts, finish what runs and poll again.
    """

    seq: int
    works: tuple[LeasedWork, ...] = ()
    cancels: tuple[WorkRef, ...] = ()
    renewed: tuple[WorkRef, ...] = ()
    results_url: str | None = None
    drain: bool = False
    ended: bool = False
    poll_hold_ms: int = POLL_HOLD_MS
    now_ms: int = 0


class ResultFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sealed frame of a reply. `sequence` counts from 0 in each attempt; `tokens` is cumulative and authenticated.

    The last frame has `final` set and carries the encoded receipt.
    """

    work_id: str
    attempt: int
    sequence: int
    tokens: int
    frame: bytes
    final: bool = False
    receipt: bytes | None = None


class FramesRequest(msgspec.Struct, frozen=True):
    """`POST /v1/relay/frames`: frames of any number of works, in order within each work."""

    session: str
    frames: tuple[ResultFrame, ...]


class RefsRequest(msgspec.Struct, frozen=True):
    """`POST /v1/relay/renew`: keep these leases alive."""

    session: str
    works: tuple[WorkRef, ...]


class FailRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /v1/relay/fail`: the attempt ended without an answer. `code` is from the error catalogue."""

    session: str
    work_id: str
    attempt: int
    code: str
    message: str = ""
    requeue: bool = False


class RelayAck(msgspec.Struct, frozen=True, omit_defaults=True):
    """Reply to frames, renew and fail: the works of the request whose lease is not (or no longer) the sender's."""

    lost: tuple[WorkRef, ...] = ()


FAIL_CODES = frozenset(
    {
        "sender_not_allowed",
        "envelope_invalid",
        "envelope_expired",
        "work_key_expired",
        "unsupported_parameter",
        "invalid_request",
        "model_not_found",
        "queue_full",
        "engine_unavailable",
        "runtime_failed",
        "work_cancelled",
    }
)
"""The codes that a runtime may fail work with; anything else is reported as `runtime_failed`."""
