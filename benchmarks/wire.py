"""The cheapest HTTP client that the relay's daemon side can use: keep-alive connections, lengths known, no library.

An HTTP library costs about as much as the gateway itself, and it is the gateway that is measured.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._need = -1
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError("the gateway closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Collect until the announced length is there."""
        self._buffer += data
        if self._need < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            self._body_at = end + 4
            self._need = self._body_at + int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self._buffer) >= self._need and self._waiter is not None:
            answer = int(self._buffer[9:12]), self._buffer[self._body_at : self._need]
            self._buffer, self._need = b"", -1
            self._waiter.set_result(answer)

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        return await self._waiter

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


class Pool:
    """Connections to one gateway, made when they are needed and kept."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        lines = [f"host: {parts.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
        self._head = "\r\n".join(lines).encode()
        self._free: list[Connection] = []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """One request."""
        if self._free:
            connection = self._free.pop()
        else:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, *self._address)
        head = b"POST %b HTTP/1.1\r\n%b\r\ncontent-length: %d\r\n\r\n" % (path.encode(), self._head, len(body))
        answer = await connection.send(head + body)
        self._free.append(connection)
        return answer
