"""An exchange: bounded bodies, and knowing when the caller has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from lattice.core.errors import LatticeError
from lattice.gateway.http.exchange import ClientGone, Exchange
from lattice.gateway.http.limits import BoundedBodies


class Caller:
    """Sends parts when told to and keeps what it is sent."""

    def __init__(self, *parts: bytes, length: int | None = None, complete: bool = True) -> None:
        self.inbox: asyncio.Queue[Message] = asyncio.Queue()
        for index, part in enumerate(parts):
            more = index < len(parts) - 1 or not complete
            self.inbox.put_nowait({"type": "http.request", "body": part, "more_body": more})
        self.sent: list[Message] = []
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        self.scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": headers,
            "state": {"request_id": "req_1"},
        }

    def hang_up(self) -> None:
        self.inbox.put_nowait({"type": "http.disconnect"})

    @property
    def exchange(self) -> Exchange:
        return Exchange(self.scope, self.inbox.get, self.send)

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def test_a_body_in_parts_is_joined() -> None:
    assert await Caller(b"a", b"b", b"c").exchange.body(3, 1) == b"abc"


@pytest.mark.parametrize("parts", [(b"four",), (b"fo", b"ur"), (b"", b"", b"four")])
async def test_one_byte_too_many(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(LatticeError, match="body_too_large"):
        await Caller(*parts).exchange.body(3, 1)


async def test_a_declared_length_is_enough_to_refuse() -> None:
    """Not a byte of the body is read."""
    caller = Caller(b"x", length=4)
    with pytest.raises(LatticeError, match="body_too_large"):
        await caller.exchange.body(3, 1)
    assert caller.inbox.qsize() == 1


@pytest.mark.parametrize("parts", [(), (b"a",)])
async def test_a_body_that_does_not_come(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(LatticeError, match="request_timeout"):
        await Caller(*parts, complete=False).exchange.body(3, 0.01)


@pytest.mark.parametrize("parts", [(), (b"a",)])
async def test_a_caller_that_hangs_up_in_its_body(parts: tuple[bytes, ...]) -> None:
    caller = Caller(*parts, complete=False)
    caller.hang_up()
    with pytest.raises(ClientGone):
        await caller.exchange.body(3, 1)


async def test_the_watch_fires_once_the_caller_is_gone() -> None:
    caller = Caller(b"x")
    exchange = caller.exchange
    await exchange.body(3, 1)
    gone = asyncio.Event()
    exchange.watch(gone.set)
    await asyncio.sleep(0)
    assert not gone.is_set()
    caller.hang_up()
    await asyncio.wait_for(gone.wait(), 1)


async def test_a_cancelled_watch_does_not_fire() -> None:
    exchange = Caller().exchange
    gone = asyncio.Event()
    watcher = exchange.watch(gone.set)
    await asyncio.sleep(0)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert not gone.is_set()


async def test_an_answer_carries_the_headers_that_were_added() -> None:
    caller = Caller()
    exchange = caller.exchange
    exchange.response_headers.append((b"x-a", b"1"))
    await exchange.json(201, {"a": 1})
    start, body = caller.sent
    assert start["status"] == 201
    assert dict(start["headers"]) == {b"content-type": b"application/json", b"content-length": b"7", b"x-a": b"1"}
    assert (body["body"], body["more_body"]) == (b'{"a":1}', False)
    assert exchange.started


# --- the control plane's bodies --------------------------------------------------------------------------------------


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads its body as FastAPI does, and then waits for the disconnect."""
    got = b""
    message: Any = {"more_body": True}
    while message["more_body"]:
        message = await receive()
        got += message["body"]
    await send({"type": "got", "body": got, "then": (await receive())["type"]})


async def test_an_inner_application_gets_the_whole_body_once() -> None:
    caller = Caller(b"a", b"b")
    caller.hang_up()
    await BoundedBodies(read_all, 2, 1)(caller.scope, caller.inbox.get, caller.send)
    assert caller.sent == [{"type": "got", "body": b"ab", "then": "http.disconnect"}]


async def test_an_inner_application_is_not_run_for_too_large_a_body() -> None:
    caller = Caller(b"a", b"bc")
    with pytest.raises(LatticeError, match="body_too_large"):
        await BoundedBodies(read_all, 2, 1)(caller.scope, caller.inbox.get, caller.send)
    assert caller.sent == []
