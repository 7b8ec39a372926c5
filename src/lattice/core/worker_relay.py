"""What a worker and a gateway say to each other: JSON over HTTP calls that the worker makes with its own credential.

`POST /v1/relay/worker/poll`     `WorkerPoll` → `WorkerReply`; held for up to `hold_ms` while there is nothing to say
`GET  /v1/relay/worker/blobs/…`  bytes by their SHA-256: of its own model, and of the queries that it has leased
`POST /v1/relay/worker/results`  `?query=…&attempt=…`: a bundle of ciphertexts, the receipt in `RECEIPT_HEADER`
`POST /v1/relay/worker/fail`     `WorkerFail`

A worker keeps one poll open even while it evaluates. It runs on time that is paid in advance: every reply says for how
many milliseconds from its receipt, by the worker's own monotonic clock, and past them the worker ends by itself.

Programs are named by their artefacts' hashes. A reply's `artefact` is the one that new queries are leased for; `next`
is a newer one, which the worker loads beside it while it goes on. Once a poll says that it is loaded, or that there is
no room for both, the gateway makes it the reply's `artefact` as soon as that strands no query. Queries that were leased
before name the old program, which the worker drops after the last of them.
"""

from __future__ import annotations

import msgspec

WORKER_PROTOCOL = 1
WORKER_POLL_HOLD_MS = 20_000
RECEIPT_HEADER = "x-lattice-receipt"
"""A signed `WorkerReceipt`, unpadded base64url; on a worker's results and on what a client gets."""

VERSION_HEADER = "x-lattice-version"
"""The version of the model that computed the result which a client gets."""

BUNDLE_MEDIA_TYPE = "application/vnd.lattice.ciphertexts"


class WorkerPoll(msgspec.Struct, frozen=True, omit_defaults=True):
    """`session` is random per process. `active`: the program is loaded, so from now on time is billed.

    `concurrency` is how many queries the worker takes at once, of which the last `ahead` only wait at hand for the
    others' ends; `identity` is the Ed25519 key that signs its receipts; `cached` are hashes of keys that it holds in
    memory. `inline`: small inputs may come with their work. `ending`: it takes no more work, finishes `running` and
    stops. `loaded` are the programs that it has, `no_room` is one that it can load only in place of the others,
    `rejected` one that it cannot load, with a code in `rejected_because`; it is not tried again.
    """

    session: str
    active: bool = False
    running: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    concurrency: int = 1
    identity: str = ""
    ending: bool = False
    inline: bool = False
    ahead: int = 0
    loaded: tuple[str, ...] = ()
    no_room: str = ""
    rejected: str = ""
    rejected_because: str = ""
    protocol: int = WORKER_PROTOCOL


class WorkerWork(msgspec.Struct, frozen=True, omit_defaults=True):
    """One leased query; hashes are SHA-256 in hex. `artefact` is the program to evaluate.

    It has to be done within `expires_in_ms` of the reply's receipt, by the worker's own clock; 0 for no limit.

    `evaluation_keys` is a bundle of the client's public key and its evaluation keys, `inputs` a bundle of ciphertexts,
    `database` a bundle of the ciphertexts of rows that were uploaded before. `blinding` is the provider's secret.
    `data` are the bytes of `inputs` where they are small and the worker's poll said `inline`; else it fetches them.
    """

    id: str
    attempt: int
    inputs: str
    evaluation_keys: str | None = None
    deadline_ms: int = 0
    artefact: str = ""
    database: str | None = None
    blinding: str = ""
    data: bytes = b""
    expires_in_ms: int = 0


class WorkerReply(msgspec.Struct, frozen=True, omit_defaults=True):
    """`artefact` is what to load, from the first reply on; `next`, of version `next_version`, what to load beside it.

    `blinding` is the provider's secret, unpadded base64url.

    `stop` says why the worker shall finish what it has and end.
    """

    paid_for_ms: int = 0
    work: tuple[WorkerWork, ...] = ()
    cancel: tuple[str, ...] = ()
    stop: str | None = None
    artefact: str = ""
    blinding: str = ""
    worker: str = ""
    hold_ms: int = WORKER_POLL_HOLD_MS
    next: str = ""
    next_version: int = 0


class WorkerFail(msgspec.Struct, frozen=True, omit_defaults=True):
    """The attempt ended without results. `code` is from the catalogue; `requeue`: another worker may succeed."""

    query: str
    attempt: int
    code: str
    message: str = ""
    requeue: bool = False


WORKER_FAIL_CODES = frozenset(
    {
        "blob_invalid",
        "parameters_mismatch",
        "parameters_insecure",
        "missing_evaluation_key",
        "scale_mismatch",
        "level_mismatch",
        "components_mismatch",
        "circuit_invalid",
        "program_invalid",
        "artefact_invalid",
        "work_cancelled",
        "runtime_failed",
    }
)
"""The codes that a worker may fail a query with; anything else is reported as `runtime_failed`."""
