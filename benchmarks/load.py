"""A load generator that costs little itself: keep-alive connections over asyncio protocols, no HTTP library.

Closed loop: each of `concurrency` connections sends its next request when the last answer is complete.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple
from urllib.parse import urlsplit


class Sample(NamedTuple):
    """One request's times, in milliseconds."""

    first_byte_ms: float
    total_ms: float


class Result(NamedTuple):
    """One run."""

    seconds: float
    samples: list[Sample]
    errors: int

    @property
    def per_second(self) -> float:
        """Completed requests per second."""
        return len(self.samples) / self.seconds

    def percentile(self, fraction: float, *, first_byte: bool = False) -> float:
        """A quantile of the total time, or of the time to the first body byte, in milliseconds."""
        values = sorted(s.first_byte_ms if first_byte else s.total_ms for s in self.samples)
        return values[min(len(values) - 1, int(fraction * len(values)))]


def make_request(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of one POST."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    """Sends one request at a time and finds the end of each answer."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._done: asyncio.Future[Sample | None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    async def once(self) -> Sample | None:
        """One request; None where the answer is not a 200."""
        self._buffer = b""
        self._body_at = -1
        self._length = -1
        self._status_ok = False
        self._first = 0.0
        self._done = asyncio.get_running_loop().create_future()
        self._begun = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]
        return await self._done

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data
        if self._body_at < 0:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._body_at = end + 4
            self._status_ok = buffer.startswith(b"HTTP/1.1 200")
            head = buffer[:end].lower()
            at = head.find(b"content-length:")
            self._length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else -1
        if not self._first and len(buffer) > self._body_at:
            self._first = time.perf_counter()
        complete = len(buffer) - self._body_at >= self._length if self._length >= 0 else buffer.endswith(b"0\r\n\r\n")
        if complete:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _finish(self) -> None:
        now = time.perf_counter()
        sample = Sample((self._first - self._begun) * 1000, (now - self._begun) * 1000)
        if self._done is not None and not self._done.done():
            self._done.set_result(sample if self._status_ok else None)


async def run_load(url: str, request: bytes, concurrency: int, seconds: float, warm_up: float = 1.0) -> Result:
    """Load `url` for `seconds` after a warm-up whose samples are dropped."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    samples: list[Sample] = []
    errors = 0
    begin = loop.time() + warm_up
    end = begin + seconds

    async def one() -> None:
        nonlocal errors
        _, connection = await loop.create_connection(lambda: _Connection(request), parts.hostname, parts.port)
        while loop.time() < end:
            started = loop.time()
            sample = await connection.once()
            if sample is None:
                errors += 1
                if errors > 100:
                    raise RuntimeError("more than 100 failed requests")
            elif begin <= started and loop.time() <= end:
                samples.append(sample)
        connection._transport.close()

    await asyncio.gather(*(one() for _ in range(concurrency)))
    return Result(seconds, samples, errors)
