"""The worker's side of the relay: messages and limits between a gateway and `lattice-ctl worker run`.

A worker runs one version of one encrypted model. All routes stand under its credential (`Authorization: Bearer rlc_…`):
`POST /v1/relay/worker/poll` and `/fail` carry these messages as MessagePack (or as JSON, by content type; the reply is
in the same form), `GET /v1/relay/worker/blobs/{sha256}` gives the bytes that a lease names, and `POST
/v1/relay/worker/results?query=…&attempt=…` takes a streamed bundle with the headers below.

Time is sold in slices. `paid_for_ms` counts from the receipt of a reply: a worker that hears nothing more for that long
starts no new evaluation and has `DRAIN_MS` to finish what runs, on its own monotonic clock; then it stops.
"""

from __future__ import annotations

import msgspec

WORKER_POLL_MS = 5_000
"""How long a worker's poll is held at most: every reply renews what is paid for."""

SLICE_MS = 10_000
"""The gateway sells time in slices: each contact pays this much ahead, as far as the credits reach."""

DRAIN_MS = 5_000
"""The reserve behind the slice, paid for from the start, in which a worker that must stop finishes what runs."""

QUERY_LEASE_MS = 60_000
"""A query's lease without a poll that names it among those that run."""

DEFAULT_SLOTS = 2
"""Queries that a worker holds at a time unless it says otherwise: one is evaluated while the next one is fetched."""

MAX_SLOTS = 64
MAX_RECEIPT_BYTES = 4_096

RECEIPT_HEADER = "lattice-receipt"
"""On results: the worker's signed receipt, unpadded base64url."""

TIMINGS_HEADER = "lattice-timings"
"""On results: `name=milliseconds` pairs joined by `;`, for `Server-Timing` alone; nobody is billed by them."""

SESSION_HEADER = "lattice-session"
"""On results: the session of the worker's poll."""

QUERY_FAIL_CODES = frozenset(
    {
        "blob_invalid",
        "input_invalid",
        "parameters_mismatch",
        "missing_evaluation_key",
        "keys_mismatch",
        "level_mismatch",
        "scale_mismatch",
        "artefact_invalid",
        "artefact_untrusted",
        "runtime_failed",
        "internal",
    }
)
"""What a worker may end a query with; anything else counts as `runtime_failed`."""


class WorkerPoll(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /v1/relay/worker/poll`. `session` is random per worker process; a newer one ends older ones.

    `active`: the program is loaded, so queries may come and billing runs. `running` are the queries that the worker has,
    `cached` the hashes (hex) of the evaluation keys that lie ready. `stopped`: the worker leaves, this is its last word.
    """

    session: str
    active: bool = False
    running: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    slots: int = DEFAULT_SLOTS
    stopped: bool = False


class BlobRef(msgspec.Struct, frozen=True):
    """Bytes that `/v1/relay/worker/blobs/{sha256}` gives."""

    sha256: str
    bytes: int


class QueryLease(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query handed to a worker. `deadline_ms` is relative, from the receipt of the reply."""

    id: str
    attempt: int
    deadline_ms: int
    artefact: BlobRef
    evaluation_keys: BlobRef
    inputs: BlobRef
    public_key: BlobRef | None = None
    database: BlobRef | None = None


class WorkerReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a poll.

    `artefact` is what to load, named from the first reply on. `stop` is None, or why the worker must drain and leave:
    `requested`, `credits_exhausted`, `idle`, `failed`, or `superseded` where a newer session has taken over.
    """

    paid_for_ms: int
    model: str = ""
    version: int = 0
    artefact: BlobRef | None = None
    work: tuple[QueryLease, ...] = ()
    cancel: tuple[str, ...] = ()
    stop: str | None = None
    poll_again_ms: int = 0


class QueryFailure(msgspec.Struct, frozen=True, omit_defaults=True):
    """`POST /v1/relay/worker/fail`. `requeue` gives the query back unevaluated."""

    session: str
    query: str
    attempt: int
    code: str
    message: str = ""
    requeue: bool = False


class QueryAck(msgspec.Struct, frozen=True):
    """The gateway's answer to a result or a failure that it took."""

    query: str
    state: str
