"""A runtime that answers at once: the real relay protocol and the real sealing, with no model behind it.

It stands in for the machine in gateway measurements, so that what is measured is the gateway.
Run: python -m benchmarks.instant_runtime --gateway http://127.0.0.1:8787 --key sk_lat_… [--kind hosted]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import time
from typing import Any

import aiohttp
import msgspec
import uvloop

from benchmarks.wire import Pool
from lattice.core.chat import Usage
from lattice.core.ids import b64url, unb64url
from lattice.core.relay import (
    PROTOCOL_VERSION,
    Announcement,
    FramesRequest,
    LeasedWork,
    ModelOffer,
    PollReply,
    PollRequest,
    ResultFrame,
)
from lattice.sealing.envelope import Envelope, check_sender, open_request
from lattice.sealing.frames import Trailer
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import issue_key_config
from lattice.sealing.pairing import redemption_proof_message
from lattice.sealing.receipt import Receipt, sign_receipt
from lattice.sealing.suites import preferred_suite

MODEL = "smollm2-135m-instruct"
_pack = msgspec.msgpack.Encoder().encode
_reply = msgspec.msgpack.Decoder(PollReply)
TOKENS = 8
_CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,%b}]}\n\n'
_TOKEN = _CHUNK % b'"delta":{"content":"x"},"finish_reason":null'
_FINAL = _CHUNK % b'"delta":{},"finish_reason":"stop"'
_WHOLE = (
    b'{"id":"c","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"xxxxxxxx"}}],'
    b'"usage":{"prompt_tokens":16,"completion_tokens":8,"total_tokens":24}}'
)


def token_event() -> bytes:
    """One streamed token."""
    return _TOKEN


def final_event() -> bytes:
    """The event that closes a stream."""
    return _FINAL


def whole_answer() -> bytes:
    """An answer that is not streamed."""
    return _WHOLE


class InstantRuntime:
    """Pairs by the REST routes, then answers every work with eight tokens."""

    def __init__(self, gateway: str, key: str, kind: str) -> None:
        self._gateway = gateway
        self._headers = {"authorization": f"Bearer {key}"}
        self._kind = kind
        self._identity = IdentityKey.generate()

    async def run(self, on_paired: Any = print) -> None:
        """Pair, then serve until cancelled."""
        async with aiohttp.ClientSession() as self._http:
            await self._pair()
        on_paired(self.runtime)
        self._pool = Pool(self._gateway, self._headers)
        await self._serve()

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        async with self._http.post(self._gateway + path, json=body, headers=self._headers) as response:
            answer = await response.json()
            if response.status >= 400:
                raise RuntimeError(answer)
            return answer

    async def _pair(self) -> None:
        base = f"/v1/{self._kind}-runtimes"
        self.runtime = (await self._post(base, {"name": "instant"}))["id"]
        token = (await self._post(f"{base}/{self.runtime}/bootstrap-tokens", {}))["token"]
        route, key_text = "/v1/personal-runtime-bootstrap-redemptions", self._identity.public.text
        begun = await self._post(route, {"token": token, "identity_key": key_text})
        signed, self._work_key = issue_key_config(
            self._identity, self.runtime, "interactive", preferred_suite(), time.time_ns() // 1_000_000
        )
        self._config = signed.encode()
        challenge = unb64url(begun["challenge"])
        message = redemption_proof_message(challenge, hashlib.sha256(token.encode()).digest(), self._config)
        redeemed = await self._post(
            route,
            {
                "token": token,
                "identity_key": key_text,
                "challenge": begun["challenge"],
                "proof": b64url(self._identity.sign(b"lattice redemption v1", message)),
                "key_config": b64url(self._config),
            },
        )
        self._allowed = redeemed["gateway_key"]
        self._headers = {
            "authorization": f"Bearer {redeemed['credential']}",
            "content-type": "application/vnd.lattice.relay+msgpack",
        }

    async def _serve(self) -> None:
        session, instance = "ses_" + os.urandom(8).hex(), os.urandom(8).hex()
        offers = (ModelOffer(MODEL, ("chat", "embeddings")),)
        announce: Announcement | None = Announcement((self._config,), offers, concurrency=1024)
        ack = 0
        tasks: set[asyncio.Task[None]] = set()
        while True:
            poll = PollRequest(PROTOCOL_VERSION, session, instance, ack, announce)
            status, data = await self._pool.post("/v1/relay/poll", _pack(poll))
            if status != 200:
                raise RuntimeError(data)
            reply = _reply.decode(data)
            ack, announce = reply.seq, None
            if reply.works:
                task = asyncio.create_task(self._answer(session, reply.works))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _answer(self, session: str, works: tuple[LeasedWork, ...]) -> None:
        frames: list[ResultFrame] = []
        for work in works:
            frames += self._frames(work)
        await self._pool.post("/v1/relay/frames", _pack(FramesRequest(session, tuple(frames))))

    def _frames(self, work: LeasedWork) -> list[ResultFrame]:
        now = time.time_ns() // 1_000_000
        envelope = Envelope.decode(work.envelope)
        header = check_sender(envelope, lambda key: key.text == self._allowed, now)
        sealer = open_request(envelope, self._work_key, self.runtime).reply_sealer(work.attempt)
        usage = Usage(16, TOKENS)
        trailer = Trailer(status=200, finish_reason="stop", usage=usage)
        frames: list[ResultFrame] = []
        if header.stream:
            for index in range(1, TOKENS):
                sealed = sealer.seal(_TOKEN, index)
                frames.append(ResultFrame(work.work_id, work.attempt, len(frames), index, sealed))
            last = sealer.seal_final(_TOKEN + _FINAL, trailer)
        else:
            last = sealer.seal_final(_WHOLE, trailer)
        receipt = Receipt(
            runtime=self.runtime,
            work_id=work.work_id,
            attempt=work.attempt,
            envelope_hash=b64url(envelope.envelope_hash),
            frames_hash=b64url(sealer.ciphertext_hash),
            usage=usage,
            model=header.model,
            finished_at_ms=now,
        )
        signed = sign_receipt(self._identity, receipt).encode()
        frames.append(ResultFrame(work.work_id, work.attempt, len(frames), TOKENS, last, True, signed))
        return frames


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateway", default="http://127.0.0.1:8787")
    parser.add_argument("--key", required=True)
    parser.add_argument("--kind", choices=("personal", "hosted"), default="personal")
    given = parser.parse_args()
    uvloop.run(InstantRuntime(given.gateway, given.key, given.kind).run(lambda name: print(name, flush=True)))


if __name__ == "__main__":
    main()
