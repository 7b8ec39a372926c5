"""The callers' side of a test: OpenAI's SDK, a caller that seals end to end, raw sockets, money and counters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import openai
from prometheus_client.parser import text_string_to_metric_families

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.works import WorkRow, get_work
from lattice.sealing.envelope import SealedRequest, seal_request
from lattice.sealing.frames import Trailer
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import KeyConfig, SignedKeyConfig, verify_key_config
from lattice.sealing.receipt import Receipt, SignedReceipt, verify_receipt
from lattice.sealing.stream import (
    MEDIA_ENVELOPE,
    RecordReader,
    RecordType,
    decode_error,
    decode_frame,
)
from tests.harness import GatewayClient, LiveGateway, ScriptedRuntime

CHAT = "/v1/chat/completions"
QUESTION = [{"role": "user", "content": "two and two?"}]


def sdk(live: GatewayClient, **kwargs: Any) -> openai.AsyncOpenAI:
    """OpenAI's own client, unmodified and with its default retries."""
    return openai.AsyncOpenAI(**{"base_url": f"{live.url}/v1", "api_key": live.secret, **kwargs})


# --- money and counters ------------------------------------------------------------------------------------------


async def fund(live: GatewayClient, micro: int, account: str | None = None) -> None:
    """Grant credits to an account, the owner's by default."""
    if account is None:
        account = (await live.call("GET", "/v1/account"))[1]["id"]
    status, body = await live.call("POST", "/v1/credits/grants", {"account": account, "amount_micro": micro})
    assert status == 201, body


async def hosted(live: LiveGateway, credits: int = 10_000_000) -> ScriptedRuntime:
    """Hosted capacity that polls, and credits to pay for it."""
    if credits:
        await fund(live, credits)
    runtime = await ScriptedRuntime(live, "hosted").pair()
    await runtime.connect()
    return runtime


async def new_account(live: GatewayClient, **wanted: Any) -> tuple[str, str]:
    """Another account and a key of it with every scope that it can have: `(account, secret)`."""
    status, account = await live.call("POST", "/v1/accounts", {"name": "somebody else"})
    assert status == 201, account
    scopes = (await live.call("GET", "/v1/key"))[1]["scopes"]
    return account["id"], await live.new_key(account=account["id"], **{"scopes": scopes, **wanted})


async def balance(live: GatewayClient) -> tuple[int, int]:
    """Available and held micro-credits of the owner."""
    body = (await live.call("GET", "/v1/credits"))[1]
    return body["available_micro"], body["held_micro"]


async def usage_rows(live: GatewayClient) -> list[dict[str, Any]]:
    """The owner's metered answers, newest first."""
    return (await live.call("GET", "/v1/usage"))[1]["data"]


async def require_at_rest(live: LiveGateway) -> None:
    """The ledger adds up and nothing is on hold."""
    audit = await live.audit()
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())


async def require_uncharged(live: LiveGateway) -> None:
    """At rest, and nobody was charged anything."""
    await require_at_rest(live)
    assert await counter(live, "lattice_charged_micro_total") == 0
    assert not await usage_rows(live)


async def counter(live: GatewayClient, name: str, **labels: str) -> float:
    """A sample of `/metrics`, 0 where it was never counted."""
    async with live.http.get(f"{live.url}/metrics") as response:
        text = await response.text()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def work_row(live: LiveGateway, work_id: str) -> WorkRow:
    """The durable row of a work."""
    row = await live.gateway.store.read(get_work, work_id)
    assert row is not None
    return row


async def ended(live: LiveGateway) -> None:
    """Return when no work is in flight any more."""
    while live.gateway.hub.works:
        await asyncio.sleep(0.002)


# --- end to end --------------------------------------------------------------------------------------------------


@dataclass
class SealedReply:
    """What a careful end-to-end caller makes of an answer: nothing of it counts where `code` is set."""

    status: int
    headers: Any
    code: str | None = None
    error: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    trailer: Trailer | None = None
    receipt: Receipt | None = None
    keep_alives: int = 0


class SealedCaller:
    """Seals to one runtime with a sender key of its own, as the SDK does, but step by step."""

    def __init__(self, live: LiveGateway, runtime: ScriptedRuntime) -> None:
        self.live = live
        self.runtime = runtime
        self.identity = IdentityKey.generate()

    @property
    def config(self) -> KeyConfig:
        """The runtime's key config, verified."""
        signed = SignedKeyConfig.decode(self.runtime.key_config)
        return verify_key_config(signed, self.runtime.identity.public, self.runtime.runtime)

    def seal(self, body: Any = None, *, stream: bool = True, **override: Any) -> SealedRequest:
        """Seal a chat request; `override` replaces arguments of `seal_request`."""
        now = self.runtime.clock.now_ms()
        plain = {"model": self.runtime.model, "messages": QUESTION, "stream": stream} if body is None else body
        given = {
            "config": self.config,
            "sender": self.identity,
            "work_id": new_id(Prefix.WORK, now),
            "model": self.runtime.model,
            "max_output_tokens": 64,
            "stream": stream,
            "task": "chat",
            "body": msgspec.json.encode(plain),
            "now_ms": now,
        }
        return seal_request(**{**given, **override})[1]

    async def post(self, sealed: bytes, key: str | None = None, **headers: str) -> tuple[int, Any, bytes]:
        """Send envelope bytes: status, headers, body."""
        secret = self.live.secret if key is None else key
        sent = {"authorization": f"Bearer {secret}", "content-type": MEDIA_ENVELOPE, **headers}
        async with self.live.http.post(self.live.url + CHAT, data=sealed, headers=sent) as response:
            return response.status, response.headers, await response.read()

    async def chat(self, sealed: SealedRequest, key: str | None = None) -> SealedReply:
        """Send and read the whole reply, checking all that an end-to-end caller checks."""
        status, headers, body = await self.post(sealed.envelope.encode(), key)
        reply = SealedReply(status, headers)
        if status != 200:
            reply.error = msgspec.json.decode(body)["error"]
            reply.code = reply.error["code"]
            return reply
        try:
            self._read(sealed, body, reply)
        except LatticeError as error:
            reply.code, reply.error = error.code, error.body()
        return reply

    def _read(self, sealed: SealedRequest, body: bytes, reply: SealedReply) -> None:
        opener = sealed.reply_opener()
        reader = RecordReader()
        for record in reader.feed(body):
            if record.type is RecordType.KEEPALIVE:
                reply.keep_alives += 1
            elif record.type is RecordType.ERROR:
                raise decode_error(record.payload)
            elif record.type is RecordType.FRAME:
                opened = opener.open(*decode_frame(record.payload))
                reply.payload += opened.payload
                reply.trailer = opened.trailer or reply.trailer
            else:
                opener.require_finished()
                reply.receipt = verify_receipt(
                    SignedReceipt.decode(record.payload),
                    self.runtime.identity.public,
                    envelope_hash=sealed.envelope.envelope_hash,
                    frames_hash=opener.ciphertext_hash,
                    attempt=opener.attempt,
                )
        opener.require_finished()
        if reader.pending or reply.receipt is None or reply.trailer is None:
            raise LatticeError("reply_invalid", "The reply was cut off.")
        if (reply.receipt.usage, reply.receipt.status) != (reply.trailer.usage, reply.trailer.status):
            raise LatticeError("receipt_invalid", "The receipt's usage or status is not the sealed one.")


# --- streams, read as they come ----------------------------------------------------------------------------------


class EventReader:
    """A streamed answer, one SSE event or comment at a time, without the blank line behind it."""

    def __init__(self, asking: asyncio.Task[aiohttp.ClientResponse]) -> None:
        self._asking = asking

    async def begun(self) -> aiohttp.ClientResponse:
        """The answer's status and headers, which come with its first byte."""
        response = await self._asking
        assert response.status == 200, await response.text()
        return response

    async def next(self) -> bytes | None:
        """The next event; None where the stream has ended."""
        response = await self.begun()
        lines = []
        while line := await response.content.readline():
            if line == b"\n":
                return b"".join(lines)
            lines.append(line)
        assert not lines, "the stream ended in the middle of an event"
        return None

    async def rest(self) -> list[bytes]:
        """Everything up to the end."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


@asynccontextmanager
async def streaming(live: GatewayClient, model: str, **body: Any) -> AsyncIterator[EventReader]:
    """A streamed chat over plain HTTP, under way while the block runs. Leaving the block hangs up."""
    sent = {"model": model, "messages": QUESTION, "stream": True, **body}
    headers = {"authorization": f"Bearer {live.secret}"}
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.post(live.url + CHAT, json=sent, headers=headers))
        try:
            yield EventReader(asking)
        finally:
            asking.cancel()
            for outcome in await asyncio.gather(asking, return_exceptions=True):
                if isinstance(outcome, aiohttp.ClientResponse):
                    outcome.close()


def error_code(event: bytes) -> str | None:
    """The code of an error event, None for another."""
    if not event.startswith(b'data: {"error"'):
        return None
    return str(msgspec.json.decode(event.removeprefix(b"data: "))["error"]["code"])


# --- sockets -----------------------------------------------------------------------------------------------------


class RawConnection:
    """A TCP connection whose every byte a test decides."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send now."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Read until the gateway closes: status and all bytes. 0 where it closed on somebody who still sends: then
        the kernel may reset the connection before the answer is read."""
        data = b""
        try:
            while part := await self.reader.read(65536):
                data += part
        except ConnectionError:
            pass
        return int(data.split(b" ", 2)[1]) if data else 0, data

    async def head(self) -> int:
        """Read an answer's head: its status."""
        return int((await self.reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])


@asynccontextmanager
async def connection(live: LiveGateway) -> AsyncIterator[RawConnection]:
    """A raw connection to the gateway."""
    reader, writer = await asyncio.open_connection("127.0.0.1", live.gateway.settings.port)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
