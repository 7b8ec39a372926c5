"""A TCP proxy that counts: at a chosen byte of a chosen HTTP exchange it calls somebody and lets nothing more pass."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

CHUNK = 1 << 16
MAX_WATCHED = 1 << 20

Side = Literal["request", "answer"]
Where = Literal["head", "edge", "body", "last", "end"] | float


@dataclass(frozen=True)
class Place:
    """A byte of an exchange whose `METHOD path` matches `route`.

    `head`: in the middle of its first line. `edge`: after the head's last byte. `body`: half of the body is through.
    `last`: all but one byte. `end`: everything is through, and nobody has had the time to act on it. A number from 0 to
    1 is that part of head and body together.
    `carries`: only a message that has these bytes counts; it is held back until that is known.
    """

    route: str
    side: Side
    where: Where
    carries: bytes = b""

    def __str__(self) -> str:
        where = f"byte {self.where:.3f} of 1" if isinstance(self.where, float) else self.where
        return f"{self.side} of {self.route} at its {where}"


class Message:
    """One direction of one exchange, as far as it has come."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.passed = 0
        self.size = 0
        self.head: int | None = None
        self.length = 0

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if len(self.data) < MAX_WATCHED:
            self.data += chunk
        if self.head is None and (found := self.data.find(b"\r\n\r\n")) >= 0:
            self.head = found + 4
            length = re.search(rb"\r\ncontent-length: *(\d+)", self.data[: self.head], re.IGNORECASE)
            self.length = int(length[1]) if length else 0

    @property
    def whole(self) -> bool:
        return self.head is not None and self.size >= self.head + self.length

    @property
    def body(self) -> bytes:
        return bytes(self.data[self.head or 0 :])

    def byte(self, where: Where) -> int | None:
        """How many bytes may pass; None while that cannot be known."""
        if where == "head":
            return 12
        if self.head is None:
            return None
        if isinstance(where, float):
            return max(1, int(where * (self.head + self.length)))
        rest = {"edge": 0, "body": self.length // 2, "last": max(0, self.length - 1), "end": self.length}
        return self.head + rest[where]


@dataclass
class Exchange:
    """One request and its answer on a kept-alive connection."""

    line: str
    started: float
    request: Message = field(default_factory=Message)
    answer: Message = field(default_factory=Message)


@dataclass(eq=False)
class Trap:
    """What happens at a place, once. `fired` is set after `act` has run."""

    place: Place
    act: Callable[[], None]
    fired: asyncio.Event = field(default_factory=asyncio.Event)

    def spring(self) -> None:
        if not self.fired.is_set():
            self.act()
            self.fired.set()

    def fits(self, exchange: Exchange) -> bool:
        return not self.fired.is_set() and re.search(self.place.route, exchange.line) is not None


class ByteProxy:
    """Forwards to a loopback port, whether somebody listens there or not."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.trap: Trap | None = None
        self.on_exchange: Callable[[Exchange], None] = lambda exchange: None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self)
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection("127.0.0.1", self._port)
            self._open.add(there)
            pumps = {
                asyncio.create_task(connection.pump(reader, there, "request")),
                asyncio.create_task(connection.pump(back, writer, "answer")),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    self._open.discard(end)
                    end.close()
                    with suppress(OSError, ConnectionError):
                        await end.wait_closed()


class Connection:
    """One connection's exchanges, one after the other."""

    def __init__(self, proxy: ByteProxy) -> None:
        self._proxy = proxy
        self._exchange: Exchange | None = None

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: Side) -> None:
        """Until one end is gone, or the trap has gone off."""
        with suppress(OSError, ConnectionError):
            while chunk := await reader.read(CHUNK):
                if not await self._pass(chunk, writer, side):
                    return

    async def _pass(self, chunk: bytes, writer: asyncio.StreamWriter, side: Side) -> bool:
        exchange = self._exchange
        if side == "request" and (exchange is None or exchange.answer.size):
            line = chunk.split(b" HTTP/1.1", 1)[0].decode(errors="replace")
            exchange = self._exchange = Exchange(line, time.time())
        assert exchange is not None, "an answer to nothing"
        message = exchange.request if side == "request" else exchange.answer
        message.add(chunk)
        trap = self._proxy.trap
        limit = self._limit(trap, exchange, message, side) if trap is not None else message.size
        pending = bytes(message.data[message.passed :]) if message.size == len(message.data) else chunk
        step = pending if limit >= message.size else pending[: max(0, limit - message.passed)]
        message.passed += len(step)
        writer.write(step)
        await writer.drain()
        if side == "answer" and message.whole and limit >= message.size:
            self._proxy.on_exchange(exchange)
        if trap is None or not self._reached(trap, exchange, message, side):
            return True
        # What has passed is in the other's hands by then; by itself, since an end that hangs up first ends this pump.
        asyncio.get_running_loop().call_later(0.005, trap.spring)
        await trap.fired.wait()
        return False

    def _limit(self, trap: Trap, exchange: Exchange, message: Message, side: Side) -> int:
        """How much of the message may have passed after this."""
        if trap.place.side != side or not trap.fits(exchange):
            return message.size
        if trap.place.carries:
            if not message.whole:
                return message.passed  # held until it is known
            if trap.place.carries not in message.data:
                return message.size
        byte = message.byte(trap.place.where)
        return message.size if byte is None else min(byte, message.size)

    def _reached(self, trap: Trap, exchange: Exchange, message: Message, side: Side) -> bool:
        if trap.place.side != side or not trap.fits(exchange):
            return False
        if trap.place.carries and (not message.whole or trap.place.carries not in message.data):
            return False
        byte = message.byte(trap.place.where)
        return byte is not None and message.passed >= byte


@asynccontextmanager
async def byte_proxy(port: int) -> AsyncIterator[ByteProxy]:
    """A proxy in front of a port that ends with the block."""
    proxy = ByteProxy(port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
