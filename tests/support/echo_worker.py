"""A deployed model without mathematics, and a worker that computes nothing: its result is the query's own bytes.

It speaks the whole worker protocol of `lattice.core.worker_relay` with real receipts; a test decides its every step.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sqlalchemy import Connection

from lattice.core.worker_relay import RECEIPT_HEADER, WorkerFail, WorkerPoll, WorkerReply, WorkerWork
from lattice.fhe.serialise.bundle import write_bundle
from lattice.gateway.encrypted.evaluation_key_rows import NewKeys, register_keys
from lattice.gateway.encrypted.model_rows import get_model
from lattice.gateway.encrypted.version_rows import NewVersion, Ready, create_version, finish_version
from lattice.sealing.identity import IdentityKey
from lattice.sealing.worker_receipt import WorkerReceipt, sign_worker_receipt
from tests.harness import GatewayClient, LiveGateway, RelayRefused

QUERIES = "/v1/encrypted-queries"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


class Deployed:
    """A model whose version is ready, an end user's token and keys."""

    def __init__(self, live: LiveGateway) -> None:
        self.live = live
        self.model = self.token = self.token_id = self.keys = ""

    async def deploy(self, **settings: Any) -> Deployed:
        """Make all of it."""
        body = {"name": f"echo {os.urandom(3).hex()}", "weights_exposure": "hosted", "settings": settings}
        status, made = await self.live.call("POST", "/v1/encrypted-models", body)
        assert status == 201, made
        self.model, self.account = made["id"], (await self.live.call("GET", "/v1/account"))[1]["id"]
        await self.new_version()
        self.token_id, self.token = await self.new_token("ada")
        self.keys = await self.new_keys("ada")
        return self

    async def new_version(self, keys_hash: bytes = b"k" * 32) -> None:
        """A version that is ready, with random bytes for an artefact."""
        blob = await self.live.gateway.encrypted.blobs.put(_once(os.urandom(100)), 1_000)
        now = self.live.gateway.clock.now_ms()

        def write(conn: Connection) -> None:
            model = get_model(conn, self.account, self.model)
            new = NewVersion(
                source_sha256=blob.sha256,
                source_kind="artefact",
                calibration_sha256=None,
                options="{}",
                gateway_id="gw_test",
            )
            row = create_version(conn, model, new, now)
            ready = Ready(
                artefact_sha256=blob.sha256,
                artefact_bytes=100,
                client_sha256=blob.sha256,
                program_id="prg_echo",
                parameters_id="par_echo",
                keys_hash=keys_hash,
                key_bytes=100,
                report="{}",
            )
            finish_version(conn, model, row.number, ready, now)

        await self.live.gateway.store.write(write)
        self.artefact = blob.sha256.hex()

    async def new_token(self, user: str, **wanted: Any) -> tuple[str, str]:
        """Another end user's token: id and secret."""
        path = f"/v1/encrypted-models/{self.model}/access-tokens"
        status, made = await self.live.call("POST", path, {"name": user, "user": user, **wanted})
        assert status == 201, made
        return made["id"], made["secret"]

    async def new_keys(self, user: str) -> str:
        """Evaluation keys of a user."""
        blob = await self.live.gateway.encrypted.blobs.put(_once(os.urandom(200)), 1_000)
        new = NewKeys(
            account_id=self.account,
            model_id=self.model,
            user=user,
            parameters_id="par_echo",
            keys_hash=b"k" * 32,
            blob_sha256=blob.sha256,
            public_key_sha256=b"p" * 32,
            size=200,
        )
        row = await self.live.gateway.store.write(register_keys, new, self.live.gateway.clock.now_ms())
        return row.id

    async def start(self, hardware_class: str = "own", count: int = 1) -> list[dict[str, Any]]:
        """Start workers through the API."""
        path = f"/v1/encrypted-models/{self.model}/workers"
        status, made = await self.live.call("POST", path, {"hardware_class": hardware_class, "count": count})
        assert status == 201, made
        return list(made["data"])

    async def worker(self, **more: Any) -> EchoWorker:
        """A worker on the provider's own machine, which has told the gateway that it is ready."""
        (made,) = await self.start()
        worker = EchoWorker(self.live, made["id"], made["credential"], **more)
        await worker.activate()
        return worker

    async def query(
        self,
        body: bytes | None = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **params: str,
    ) -> tuple[int, bytes, dict[str, str]]:
        """Send a query: status, body and headers of the answer."""
        sent = {"authorization": f"Bearer {token or self.token}", **(headers or {})}
        given = {"evaluation_keys": self.keys, **params}
        data = bundle() if body is None else body
        async with self.live.http.post(self.live.url + QUERIES, data=data, params=given, headers=sent) as response:
            return response.status, await response.read(), {k.lower(): v for k, v in response.headers.items()}

    async def submit(self, body: bytes | None = None, **params: str) -> dict[str, Any]:
        """Queue a query; its record."""
        status, answer, _ = await self.query(body, wait="0", **params)
        assert status == 202, answer
        return dict(msgspec.json.decode(answer))

    async def read(self, query: str, token: str | None = None) -> dict[str, Any]:
        """A query's record."""
        return dict((await self.live.call("GET", f"{QUERIES}/{query}", key=token or self.token))[1])


def bundle(objects: int = 2, size: int = 50) -> bytes:
    """A bundle of random bytes."""
    return write_bundle([os.urandom(size) for _ in range(objects)])


class EchoWorker:
    """One worker process, as the gateway sees it."""

    def __init__(
        self, live: GatewayClient, worker: str, credential: str, concurrency: int = 1, inline: bool = False
    ) -> None:
        self.live, self.id, self.credential, self.concurrency = live, worker, credential, concurrency
        self.inline = inline
        self.session = "ses_" + os.urandom(6).hex()
        self.identity = IdentityKey.generate()
        self.active = False
        self.loaded: tuple[str, ...] = ()
        self.running: list[str] = []
        self.stop: str | None = None
        self.paid_until = 0.0

    async def activate(self) -> None:
        """Load nothing, and say so; comes back once the gateway took note."""
        self.active = True
        await self.poll_briefly()

    async def poll_briefly(self, seconds: float = 0.3) -> WorkerReply | None:
        """A poll that is cut short unless it is answered at once."""
        try:
            return await asyncio.wait_for(self.poll(), seconds)
        except TimeoutError:
            return None

    async def poll(self, *, ending: bool = False) -> WorkerReply:
        """One poll."""
        said = WorkerPoll(
            session=self.session,
            active=self.active,
            running=tuple(self.running),
            concurrency=self.concurrency,
            identity=self.identity.public.text,
            ending=ending,
            loaded=self.loaded,
            inline=self.inline,
        )
        status, body = await self.call("POST", "poll", msgspec.json.encode(said))
        if status != 200:
            raise RelayRefused(status, msgspec.json.decode(body))
        reply = msgspec.json.decode(body, type=WorkerReply)
        self.paid_until = time.monotonic() + reply.paid_for_ms / 1000
        self.stop = reply.stop or self.stop
        return reply

    async def take(self) -> WorkerWork:
        """Poll until there is a query."""
        while True:
            reply = await self.poll()
            assert reply.stop is None, reply
            if reply.work:
                self.running += [work.id for work in reply.work]
                return reply.work[0]

    async def inputs(self, work: WorkerWork) -> bytes:
        """Fetch everything that the query needs; its ciphertexts."""
        for sha256 in (work.evaluation_keys, work.database, work.inputs):
            if sha256 is not None:
                status, data = await self.call("GET", f"blobs/{sha256}")
                assert status == 200, data
                assert hashlib.sha256(data).hexdigest() == sha256
        return data

    async def answer(self, work: WorkerWork, output: bytes | None = None, **forged: Any) -> tuple[int, Any]:
        """Deliver a result, the query's own bytes unless another is given; `forged` members go into the receipt."""
        inputs = await self.inputs(work)
        return await self.deliver(work, inputs if output is None else output, **forged)

    async def deliver(self, work: WorkerWork, output: bytes, **forged: Any) -> tuple[int, Any]:
        """Deliver without fetching anything."""
        fields: dict[str, Any] = {
            "query": work.id,
            "attempt": work.attempt,
            "identity": self.identity.public.text,
            "program": "0" * 64,
            "weights": "0" * 64,
            "keys": work.evaluation_keys,
            "inputs": work.inputs,
            "database": work.database,
            "outputs": hashlib.sha256(output).hexdigest(),
            "milliseconds": 1,
            "finished_at_ms": time.time_ns() // 1_000_000,
        }
        receipt = sign_worker_receipt(self.identity, WorkerReceipt(**fields | forged))
        path = f"results?query={work.id}&attempt={work.attempt}"
        status, body = await self.call("POST", path, output, {RECEIPT_HEADER: receipt})
        if work.id in self.running:
            self.running.remove(work.id)
        return status, msgspec.json.decode(body)

    async def fail(self, work: WorkerWork, code: str, requeue: bool = False) -> tuple[int, Any]:
        """Fail a query."""
        said = WorkerFail(work.id, work.attempt, code, "", requeue)
        status, body = await self.call("POST", "fail", msgspec.json.encode(said))
        if work.id in self.running:
            self.running.remove(work.id)
        return status, msgspec.json.decode(body)

    async def serve(self) -> None:
        """Answer everything until told to stop; then say goodbye."""
        while self.stop is None:
            reply = await self.poll()
            for work in reply.work:
                self.running.append(work.id)
                assert (await self.answer(work))[0] == 200
        await self.poll(ending=True)

    async def call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """A relay call."""
        sent = {"authorization": f"Bearer {self.credential}", **(headers or {})}
        url = f"{self.live.url}/v1/relay/worker/{path}"
        async with self.live.http.request(method, url, data=body, headers=sent) as response:
            return response.status, await response.read()


async def priced_worker(deployed: Deployed, hardware_class: str) -> EchoWorker:
    """A worker that costs something, played by the test instead of a process."""
    started = []

    class Driver:
        async def start(self, launch, on_exit) -> None:  # type: ignore[no-untyped-def]
            started.append(launch)

        async def stop(self, worker_id: str) -> None: ...

        def alive(self, worker_id: str) -> bool:
            return True

        async def close(self) -> None: ...

    deployed.live.gateway.workers.fleet._driver = Driver()
    (made,) = await deployed.start(hardware_class)
    assert made["credential"] is None
    worker = EchoWorker(deployed.live, made["id"], started[0].credential)
    await worker.activate()
    return worker
