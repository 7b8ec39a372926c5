"""The whole gateway in one process on a real port, and a runtime whose every step a test decides.

`ScriptedRuntime` speaks the real protocol with real sealing; it is what an attacker, a crashed daemon or a slow machine
looks like from the gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from lattice.core.chat import Usage
from lattice.core.clock import Clock
from lattice.core.ids import b64url, unb64url
from lattice.core.relay import (
    PROTOCOL_VERSION,
    RELAY_MEDIA_TYPE,
    Announcement,
    FailRequest,
    FramesRequest,
    LeasedWork,
    ModelOffer,
    PollReply,
    PollRequest,
    RefsRequest,
    RelayAck,
    ResultFrame,
    WorkRef,
)
from lattice.gateway.app import make_app, open_gateway
from lattice.gateway.http.server import make_server
from lattice.gateway.ledger import Audit, check
from lattice.gateway.serve import _listen
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.state import Gateway
from lattice.sealing.envelope import Envelope, check_sender, open_request
from lattice.sealing.frames import ReplySealer, Trailer
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.key_config import issue_key_config
from lattice.sealing.pairing import redemption_proof_message
from lattice.sealing.receipt import Receipt, sign_receipt
from lattice.sealing.suites import preferred_suite

MODEL = "smollm2-135m-instruct"
PROOF_LABEL = b"lattice redemption v1"
REDEMPTIONS = "/v1/personal-runtime-bootstrap-redemptions"

_pack = msgspec.msgpack.encode


def whole_answer(text: str = "four", usage: Usage = Usage(12, 3)) -> bytes:
    """A non-streamed chat completion."""
    return msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
        }
    )


def event(text: str, finish: str | None = None) -> bytes:
    """One event of a streamed chat completion."""
    delta = {"content": text} if text else {}
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


class RelayRefused(Exception):
    """The gateway answered a relay call with an error."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body.get('error')}")
        self.status = status
        self.code = body.get("error")


class GatewayClient:
    """JSON calls to a gateway, wherever it runs, under its owner's key."""

    def __init__(self, url: str, secret: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.secret = secret
        self.http = http

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """One JSON call; `key=""` sends no credential."""
        sent = dict(headers or {})
        secret = self.secret if key is None else key
        if secret:
            sent["authorization"] = f"Bearer {secret}"
        async with self.http.request(method, self.url + path, json=body, headers=sent) as response:
            return response.status, await response.json(content_type=None)

    async def chat(self, model: str, *, key: str | None = None, **body: Any) -> tuple[int, Any]:
        """One plain chat call."""
        body = {"model": model, "messages": [{"role": "user", "content": "two and two?"}], **body}
        return await self.call("POST", "/v1/chat/completions", body, key=key)

    async def new_key(self, **wanted: Any) -> str:
        """Another developer key of the owner's account."""
        status, made = await self.call("POST", "/v1/api-keys", {"name": "test", **wanted})
        assert status == 201, made
        return str(made["secret"])


class LiveGateway(GatewayClient):
    """A gateway that serves on a loopback port of this process."""

    def __init__(self, gateway: Gateway, secret: str, http: aiohttp.ClientSession) -> None:
        super().__init__(gateway.settings.origin, secret, http)
        self.gateway = gateway

    async def audit(self) -> Audit:
        """The ledger's own check: sums and what is held."""
        return await self.gateway.store.read(check)


@asynccontextmanager
async def running_gateway(
    data_dir: Path, *, clock: Clock | None = None, secret: str | None = None, **settings: Any
) -> AsyncIterator[LiveGateway]:
    """Serve a gateway until the block ends. Give `secret` to reopen a data folder that has an owner already."""
    listener = _listen("127.0.0.1", settings.pop("port", 0))
    port = listener.getsockname()[1]
    gateway, owner = await open_gateway(GatewaySettings(data_dir=data_dir, port=port, **settings), clock)
    server = make_server(make_app(gateway), gateway.settings)
    stopping = asyncio.Event()
    server.main_loop = stopping.wait  # type: ignore[method-assign]  # its own looks every 100 ms
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.005)
    async with aiohttp.ClientSession() as http:
        try:
            yield LiveGateway(gateway, secret or (owner.secret if owner else ""), http)
        finally:
            for link in list(gateway.hub.links.values()):
                link.close()
            gateway.workers.service.switchboard.close()
            await http.close()  # else the server would wait for its idle connections to notice
            stopping.set()
            await serving


class ScriptedRuntime:
    """A paired runtime under a test's control."""

    def __init__(self, live: LiveGateway, kind: str = "personal") -> None:
        self.live = live
        self.kind = kind
        self.identity = IdentityKey.generate()
        self.clock: Clock = live.gateway.clock
        self.session = "ses_" + os.urandom(6).hex()
        self.instance = os.urandom(6).hex()
        self.ack = 0
        self.concurrency = 64
        self.offers: tuple[ModelOffer, ...] = (ModelOffer(MODEL, ("chat", "embeddings")),)
        self.credential = ""

    @property
    def model(self) -> str:
        """The public model id."""
        return f"lattice:personal:{self.runtime}"

    async def pair(self, key: str | None = None) -> ScriptedRuntime:
        """Create the record, mint a token and redeem it."""
        base = f"/v1/{self.kind}-runtimes"
        status, made = await self.live.call("POST", base, {"name": "scripted"}, key=key)
        assert status == 201, made
        self.runtime: str = made["id"]
        status, minted = await self.live.call("POST", f"{base}/{self.runtime}/bootstrap-tokens", {}, key=key)
        assert status == 201, minted
        status, redeemed = await self.redeem(minted["token"])
        assert status == 201, redeemed
        return self

    async def redeem(self, token: str, **override: Any) -> tuple[int, Any]:
        """Both calls of the redemption; `override` replaces members of the second."""
        own = self.identity.public.text
        status, begun = await self.live.call("POST", REDEMPTIONS, {"token": token, "identity_key": own}, key="")
        if status != 200:
            return status, begun
        self.new_key_config(begun["runtime"])
        message = redemption_proof_message(
            unb64url(begun["challenge"]), hashlib.sha256(token.encode()).digest(), self.key_config
        )
        body = {
            "token": token,
            "identity_key": own,
            "challenge": begun["challenge"],
            "proof": b64url(self.identity.sign(PROOF_LABEL, message)),
            "key_config": b64url(self.key_config),
            **override,
        }
        status, redeemed = await self.live.call("POST", REDEMPTIONS, body, key="")
        if status == 201:
            self.runtime = redeemed["runtime"]
            self.credential = redeemed["credential"]
            self.gateway_key = PublicIdentity.from_text(redeemed["gateway_key"])
        return status, redeemed

    def new_key_config(self, runtime: str) -> None:
        """Rotate the interactive work key."""
        signed, self.work_key = issue_key_config(
            self.identity, runtime, "interactive", preferred_suite(), self.clock.now_ms()
        )
        self.key_config = signed.encode()

    def new_session(self, *, restarted: bool = False) -> None:
        """Reconnect; `restarted` is another process that knows nothing of the old one's work."""
        self.session, self.ack = "ses_" + os.urandom(6).hex(), 0
        if restarted:
            self.instance = os.urandom(6).hex()

    async def connect(self) -> None:
        """Open a session and leave a poll behind that has been cut short, as a first, empty batch."""
        await self.poll_once()

    async def poll_once(self, *, announce: bool | None = None) -> None:
        """A poll that is cut short: it says what it has to say and comes back empty."""
        held = await self.hold_poll(announce=announce)
        self.live.gateway.hub.links[self.runtime].wake()
        await held

    async def hold_poll(self, **kwargs: Any) -> asyncio.Task[PollReply]:
        """A poll that the gateway holds open, or has answered already."""
        polling = asyncio.create_task(self.poll(**kwargs))
        while not polling.done():
            link = self.live.gateway.hub.links.get(self.runtime)
            if link is not None and link.session == self.session and link._waiter is not None:
                break
            await asyncio.sleep(0.002)
        return polling

    async def poll(self, *, announce: bool | None = None, **override: Any) -> PollReply:
        """One poll; announces at the start of a session."""
        if announce is None:
            announce = self.ack == 0
        said = Announcement((self.key_config,), self.offers, self.concurrency, "test") if announce else None
        fields = {"protocol": PROTOCOL_VERSION, "session": self.session, "instance": self.instance, "ack": self.ack}
        reply = msgspec.msgpack.decode(
            await self.post("poll", PollRequest(**{**fields, **override}, announce=said)), type=PollReply
        )
        if not reply.ended:
            self.ack = reply.seq
        return reply

    async def take(self) -> LeasedWork:
        """Poll until there is a work."""
        while True:
            reply = await self.poll()
            if reply.works:
                (work,) = reply.works
                return work

    async def frames(self, *frames: ResultFrame) -> RelayAck:
        """Post frames."""
        return msgspec.msgpack.decode(await self.post("frames", FramesRequest(self.session, frames)), type=RelayAck)

    async def renew(self, *works: LeasedWork) -> RelayAck:
        """Renew leases."""
        refs = tuple(WorkRef(work.work_id, work.attempt) for work in works)
        return msgspec.msgpack.decode(await self.post("renew", RefsRequest(self.session, refs)), type=RelayAck)

    async def fail(self, work: LeasedWork, code: str, message: str = "", requeue: bool = False) -> RelayAck:
        """Fail a work."""
        request = FailRequest(self.session, work.work_id, work.attempt, code, message, requeue)
        return msgspec.msgpack.decode(await self.post("fail", request), type=RelayAck)

    async def post(self, route: str, message: Any) -> bytes:
        """A relay call; raises `RelayRefused`."""
        headers = {"authorization": f"Bearer {self.credential}", "content-type": RELAY_MEDIA_TYPE}
        url = f"{self.live.url}/v1/relay/{route}"
        data = message if isinstance(message, bytes) else _pack(message)
        async with self.live.http.post(url, data=data, headers=headers) as response:
            body = await response.read()
            if response.status != 200:
                raise RelayRefused(response.status, msgspec.json.decode(body))
            return body

    def open(self, work: LeasedWork) -> Answer:
        """Check the sender, open the work and start its reply."""
        return Answer(self, work)

    async def serve_one(self, answer: bytes | None = None, usage: Usage = Usage(12, 3)) -> LeasedWork:
        """Take one work and answer it, streamed or whole as its header asks."""
        work = await self.take()
        opened = self.open(work)
        if opened.header.stream:
            await self.frames(opened.frame(event("fo"), 1), opened.frame(event("ur"), 2))
            await self.frames(opened.final(event("", "stop"), usage))
        else:
            await self.frames(opened.final(answer or whole_answer(usage=usage), usage))
        return work

    async def serve_forever(self, **kwargs: Any) -> None:
        """Answer everything, one at a time."""
        while True:
            await self.serve_one(**kwargs)


class Answer:
    """The reply to one work, frame by frame."""

    def __init__(self, runtime: ScriptedRuntime, work: LeasedWork) -> None:
        self.runtime = runtime
        self.work = work
        self.envelope = Envelope.decode(work.envelope)
        self.header = check_sender(self.envelope, lambda _: True, runtime.clock.now_ms())
        opened = open_request(self.envelope, runtime.work_key, runtime.runtime)
        self.opened = opened
        self.body = opened.body
        self.sealer: ReplySealer = opened.reply_sealer(work.attempt)
        self.sequence = 0

    def frame(self, payload: bytes, tokens: int) -> ResultFrame:
        """The next frame."""
        return self._wire(self.sealer.seal(payload, tokens), tokens)

    def final(
        self, payload: bytes, usage: Usage, *, status: int = 200, signed: dict[str, Any] | None = None
    ) -> ResultFrame:
        """The last frame with its receipt; `signed` overrides the receipt's members."""
        trailer = Trailer(status=status, finish_reason="stop", usage=usage)
        sealed = self.sealer.seal_final(payload, trailer)
        fields = {
            "runtime": self.runtime.runtime,
            "work_id": self.work.work_id,
            "attempt": self.work.attempt,
            "envelope_hash": b64url(self.envelope.envelope_hash),
            "frames_hash": b64url(self.sealer.ciphertext_hash),
            "usage": usage,
            "model": self.header.model,
            "finished_at_ms": self.runtime.clock.now_ms(),
            "status": status,
        }
        receipt = sign_receipt(self.runtime.identity, Receipt(**{**fields, **(signed or {})})).encode()
        return self._wire(sealed, usage.completion_tokens, receipt)

    def _wire(self, sealed: bytes, tokens: int, receipt: bytes | None = None) -> ResultFrame:
        frame = ResultFrame(
            self.work.work_id, self.work.attempt, self.sequence, tokens, sealed, receipt is not None, receipt
        )
        self.sequence += 1
        return frame
