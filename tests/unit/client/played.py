"""A gateway and a daemon in memory, behind `httpx2.MockTransport`. Sealing is real; routing and money are not."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2

from lattice.core.chat import Usage
from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, b64url, new_id, unb64url
from lattice.sealing.envelope import Envelope, OpenedRequest, check_sender, open_request
from lattice.sealing.frames import Trailer
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.key_config import issue_key_config
from lattice.sealing.pairing import app_key_mac, pairing_mac, split_bootstrap
from lattice.sealing.receipt import Receipt, sign_receipt
from lattice.sealing.stream import MEDIA_ENVELOPE, MEDIA_REPLY, RecordType, encode_frame, encode_record
from lattice.sealing.suites import Suite

ORIGIN = "http://gateway.test"
KEY = "sk_lat_test"
Records = list[bytes]


class Chunks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body in pieces, for both kinds of client. An exception among the pieces is raised in its place."""

    def __init__(self, pieces: list[bytes | Exception]) -> None:
        self.pieces = pieces
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chunk(model: str, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [choice],
    }


def completion(model: str, message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


class PlayedDaemon:
    """A machine with an identity, work keys, an allow-list and an engine that says three words."""

    def __init__(self, runtime_id: str, clock: ManualClock) -> None:
        self.runtime_id = runtime_id
        self.clock = clock
        self.identity = IdentityKey.generate()
        self.allowed: set[PublicIdentity] = set()
        self.proof: dict[str, str] | None = None
        self.seen: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.mangle: Callable[[Records], Records] = lambda records: records
        self.reply: Callable[[dict[str, Any]], tuple[int, list[bytes]]] | None = None
        self.usage = Usage(5, 3)
        self.receipt_changes: dict[str, Any] = {}
        self.receipt_signer: IdentityKey | None = None
        self.roll()

    def roll(self) -> None:
        """Issue the next interactive key config; the old private half is gone."""
        self.config, self.pair = issue_key_config(
            self.identity, self.runtime_id, "interactive", Suite.X25519, self.clock.now_ms()
        )

    def redeem(self, bootstrap: str, minted: dict[str, Any], origin: str = ORIGIN) -> None:
        """What `lattice-ctl relay connect` does with the whole string."""
        _, secret = split_bootstrap(bootstrap)
        assert secret is not None
        app_key = unb64url(minted["app_key"])
        expected = app_key_mac(secret, origin=origin, runtime=self.runtime_id, app_key=app_key)
        assert unb64url(minted["app_key_mac"]) == expected
        self.allowed.add(PublicIdentity.from_bytes(app_key))
        config = self.config.encode()
        mac = pairing_mac(
            secret,
            origin=origin,
            runtime=self.runtime_id,
            identity_key=self.identity.public.raw,
            key_config=config,
            app_key=app_key,
        )
        self.proof = {"mac": b64url(mac), "app_key": minted["app_key"], "key_config": b64url(config)}

    def work(self, data: bytes) -> Records:
        """Check, open, run and seal: the records of the reply, or a LatticeError."""
        envelope = Envelope.decode(data)
        check_sender(envelope, self.allowed.__contains__, self.clock.now_ms())
        try:
            opened = open_request(envelope, self.pair, self.runtime_id)
        except LatticeError as error:
            if error.code == "work_key_expired":
                error.details["key_config"] = b64url(self.config.encode())
            raise
        self.headers.append(opened.header)
        body = json.loads(opened.body)
        self.seen.append(body)
        status, payloads = (self.reply or self._three_words)(body)
        return self.mangle(self._sealed(envelope, opened, status, payloads))

    def _three_words(self, body: dict[str, Any]) -> tuple[int, list[bytes]]:
        model = body["model"]
        if "input" in body:
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
            return 200, [json.dumps({"object": "list", "model": model, "data": data, "usage": {}}).encode()]
        if not body.get("stream"):
            return 200, [json.dumps(completion(model, {"content": "one two three"})).encode()]
        words = [chunk(model, {"role": "assistant", "content": ""})]
        words += [chunk(model, {"content": word}) for word in ("one", " two", " three")]
        return 200, [sse(word) for word in words] + [sse(chunk(model, {}, "stop"))]

    def _sealed(self, envelope: Envelope, opened: OpenedRequest, status: int, payloads: list[bytes]) -> Records:
        sealer = opened.reply_sealer(1)
        records = [encode_record(RecordType.KEEPALIVE)]
        for index, payload in enumerate(payloads[:-1]):
            records.append(encode_frame(sealer.seal(payload, index), index, False))
        trailer = Trailer(status=status, finish_reason="stop", usage=self.usage)
        final = sealer.seal_final(payloads[-1], trailer)
        records.append(encode_frame(final, self.usage.completion_tokens, True))
        fields: dict[str, Any] = {
            "runtime": self.runtime_id,
            "work_id": opened.header.work_id,
            "attempt": 1,
            "envelope_hash": b64url(envelope.envelope_hash),
            "frames_hash": b64url(sealer.ciphertext_hash),
            "usage": self.usage,
            "model": "tiny",
            "finished_at_ms": self.clock.now_ms(),
            "status": status,
            **self.receipt_changes,
        }
        receipt = sign_receipt(self.receipt_signer or self.identity, Receipt(**fields))
        return [*records, encode_record(RecordType.RECEIPT, receipt.encode())]


class PlayedGateway:
    """The routes that the SDK uses. `faults` are consumed first: each answers or raises instead of the route."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.daemons: dict[str, PlayedDaemon] = {}
        self.minted: dict[str, dict[str, Any]] = {}
        self.revoked: set[str] = set()
        self.faults: deque[Callable[[httpx2.Request], httpx2.Response | None]] = deque()
        self.requests: list[httpx2.Request] = []
        self.overrides: dict[str, Any] = {}
        self.mode = "gateway"
        self.plain: Callable[[dict[str, Any]], httpx2.Response] | None = None
        self.sealed_headers: dict[str, str] = {}
        self.bodies: list[Chunks] = []
        self.tail: list[bytes | Exception] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        assert request.headers.get("authorization") == f"Bearer {KEY}"
        if self.faults and (fault := self.faults.popleft()(request)) is not None:
            return fault
        try:
            return self._route(request)
        except LatticeError as error:
            return refused(error)

    def counted(self) -> Counter[str]:
        return Counter(f"{r.method} {r.url.path.removeprefix('/v1')}" for r in self.requests)

    def add(self, name: str = "laptop") -> PlayedDaemon:
        runtime_id = new_id(Prefix.RUNTIME, self.clock.now_ms())
        self.daemons[runtime_id] = PlayedDaemon(runtime_id, self.clock)
        return self.daemons[runtime_id]

    def record(self, daemon: PlayedDaemon) -> dict[str, Any]:
        paired = daemon.proof is not None or bool(daemon.allowed)
        state = "revoked" if daemon.runtime_id in self.revoked else "reachable" if paired else "unpaired"
        return {
            "id": daemon.runtime_id,
            "name": "laptop",
            "kind": "personal",
            "state": state,
            "verified": True,
            "models": [{"id": "tiny", "default_max_output_tokens": 77}],
            "identity_key": daemon.identity.public.text if paired else None,
            "fingerprint": daemon.identity.public.words if paired else None,
            "key_config": b64url(daemon.config.encode()) if paired else None,
            "pairing": daemon.proof,
            "last_seen_ms": None,
            "created_at_ms": self.clock.now_ms(),
            "something_new": 1,
            **self.overrides,
        }

    def _route(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path.removeprefix("/v1")
        if path in ("/chat/completions", "/embeddings"):
            return self._sealed(request) if request.headers["content-type"] == MEDIA_ENVELOPE else self._plain(request)
        parts = path.strip("/").split("/")
        if parts[0] in ("personal-runtimes", "hosted-runtimes"):
            return self._runtimes(request, parts[1:])
        if path in ("/usage", "/ledger/entries"):
            return paged([{"id": f"ent_{n}"} for n in range(5)], request)
        if path == "/models":
            return answered({"object": "list", "data": [{"id": "lattice:tiny"}]})
        return answered({"path": path, "method": request.method, "body": json.loads(request.content or b"null")})

    def _runtimes(self, request: httpx2.Request, parts: list[str]) -> httpx2.Response:
        if not parts:
            if request.method == "POST":
                return answered(self.record(self.add(json.loads(request.content)["name"])), 201)
            return paged([self.record(d) for d in self.daemons.values()], request)
        daemon = self.daemons.get(parts[0])
        if daemon is None:
            raise LatticeError("personal_lattice_not_found")
        if parts[1:] == ["bootstrap-tokens"]:
            self.minted[parts[0]] = json.loads(request.content)
            return answered({"token": "lbt_" + "a" * 43, "expires_at_ms": self.clock.now_ms() + 600_000}, 201)
        if request.method == "DELETE":
            self.revoked.add(parts[0])
        return answered(self.record(daemon))

    def _sealed(self, request: httpx2.Request) -> httpx2.Response:
        assert request.headers["x-lattice-sealing"] == "end_to_end"
        envelope = Envelope.decode(request.content)
        records = self.daemons[envelope.parsed.runtime].work(request.content)
        body = Chunks([*split(b"".join(records)), *self.tail])
        self.bodies.append(body)
        headers = {"content-type": MEDIA_REPLY, "x-request-id": "req_1", "x-lattice-sealing": "end_to_end"}
        return httpx2.Response(200, headers={**headers, **self.sealed_headers}, stream=body)

    def _plain(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        if self.plain is not None:
            return self.plain(body)
        headers = {"x-lattice-sealing": self.mode, "x-lattice-runtime": "lat_x", "x-lattice-work": "work_x"}
        if not body.get("stream"):
            return answered(completion(body["model"], {"content": "plain"}), headers=headers)
        pieces: list[bytes | Exception] = [b": keep-alive\n\n", sse(chunk(body["model"], {"content": "pl"}))]
        pieces += [sse(chunk(body["model"], {"content": "ain"}, "stop")), b"data: [DONE]\n\n"]
        headers["content-type"] = "text/event-stream"
        return httpx2.Response(200, headers=headers, stream=Chunks(pieces))


def split(data: bytes, size: int = 37) -> list[bytes]:
    """Pieces whose ends fall anywhere, as TCP makes them."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def answered(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.Response(status, json=value, headers={"x-request-id": "req_1", **(headers or {})})


def refused(error: LatticeError) -> httpx2.Response:
    headers = {"x-should-retry": str(error.spec.retry).lower(), "x-request-id": "req_1"}
    if error.retry_after_ms is not None:
        headers["retry-after"] = str(error.retry_after_ms // 1000)
    return answered(error.openai_body(), error.status, headers)


def paged(items: list[Any], request: httpx2.Request) -> httpx2.Response:
    """Pages of at most two items, with a plain number for a cursor."""
    start = int(request.url.params.get("cursor", "0"))
    following = start + 2 if start + 2 < len(items) else None
    return answered({"data": items[start : start + 2], "next_cursor": None if following is None else str(following)})


def fault(error: Exception) -> Callable[[httpx2.Request], httpx2.Response | None]:
    """A route's stand-in that raises, or answers with a catalogued error."""

    def act(request: httpx2.Request) -> httpx2.Response | None:
        if isinstance(error, LatticeError):
            return refused(error)
        raise error

    return act


def passed(request: httpx2.Request) -> httpx2.Response | None:
    """Let the real route answer."""
    return None
