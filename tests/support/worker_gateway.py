"""The gateway as a worker sees it, over real HTTP, with every step in a test's hands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from aiohttp import web

from lattice.core.ids import b64url
from lattice.core.worker_relay import RECEIPT_HEADER, WorkerFail, WorkerPoll, WorkerReply, WorkerWork

SECRET = bytes(range(32))
CREDENTIAL = "rlc_test-credential"


class WorkerGateway:
    """Blobs, works to hand out, and what came back."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.artefact = ""
        self.paid_for_ms = 10_000
        self.works: list[WorkerWork] = []
        self.cancels: list[str] = []
        self.stop: str | None = None
        self.polls: list[WorkerPoll] = []
        self.results: dict[str, tuple[bytes, str]] = {}
        self.failed: dict[str, WorkerFail] = {}
        self.downloads: list[str] = []
        self.refuse: int = 0
        self.url = ""
        self._news = asyncio.Event()

    def put(self, data: bytes) -> str:
        """Keep a blob; its hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[sha256] = data
        return sha256

    def lease(self, number: int, keys: bytes, inputs: bytes, **changed: Any) -> str:
        """Hand out a query; its id."""
        work = WorkerWork(f"qry_{number}", 1, self.put(inputs), self.put(keys), 0, self.artefact)
        self.works.append(msgspec.structs.replace(work, **changed))
        self.wake()
        return work.id

    def wake(self) -> None:
        """End the held poll."""
        self._news.set()

    async def until(self, condition: Any, seconds: float = 30) -> None:
        """Wait for something that a worker does."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def poll(self, request: web.Request) -> web.Response:
        """Held until there is news."""
        if self.refuse:
            return web.json_response({"error": "invalid_credential", "message": "no"}, status=self.refuse)
        assert request.headers["authorization"] == f"Bearer {CREDENTIAL}"
        said = msgspec.json.decode(await request.read(), type=WorkerPoll)
        first = not self.polls or self.polls[-1].active != said.active
        self.polls.append(said)
        if not first and not said.ending and not (self.works or self.cancels or self.stop):
            self._news.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), 1.0)
        works, self.works = (self.works, []) if said.active else ([], self.works)
        cancels, self.cancels = self.cancels, []
        reply = WorkerReply(self.paid_for_ms, tuple(works), tuple(cancels), self.stop, self.artefact, b64url(SECRET))
        return web.Response(body=msgspec.json.encode(reply), content_type="application/json")

    async def blob(self, request: web.Request) -> web.Response:
        """By hash."""
        sha256 = request.match_info["sha256"]
        self.downloads.append(sha256)
        if sha256 not in self.blobs:
            return web.json_response({"error": "not_found", "message": "no"}, status=404)
        return web.Response(body=self.blobs[sha256])

    async def take(self, request: web.Request) -> web.Response:
        """Results."""
        self.results[request.query["query"]] = await request.read(), request.headers[RECEIPT_HEADER]
        return web.json_response({})

    async def fail(self, request: web.Request) -> web.Response:
        """Failures."""
        failed = msgspec.json.decode(await request.read(), type=WorkerFail)
        self.failed[failed.query] = failed
        return web.json_response({})


@asynccontextmanager
async def worker_gateway() -> AsyncIterator[WorkerGateway]:
    """Serve one on a loopback port."""
    gateway = WorkerGateway()
    app = web.Application(client_max_size=1 << 30)
    base = "/v1/relay/worker"
    app.router.add_post(f"{base}/poll", gateway.poll)
    app.router.add_get(base + "/blobs/{sha256}", gateway.blob)
    app.router.add_post(f"{base}/results", gateway.take)
    app.router.add_post(f"{base}/fail", gateway.fail)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield gateway
    finally:
        gateway.wake()
        await runner.cleanup()
