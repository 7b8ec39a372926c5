"""A provider and its end users, over real HTTP: uploads, models, tokens, keys."""

from __future__ import annotations

import asyncio
import hashlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lattice.core.ids import SecretPrefix
from lattice.fhe import artefact
from lattice.fhe.client_side import client_keys
from lattice.fhe.serialise.bundle import write_bundle
from lattice.fhe.serialise.keys import encode_evaluation_keys, encode_public_key
from tests.harness import LiveGateway
from tests.support.compiled import compiled

ALL = [
    "lattice:models:manage",
    "lattice:workers:manage",
    "lattice:tokens:manage",
    "lattice:keys:manage",
    "lattice:credits:read",
    "lattice:compute:catalog:read",
    "lattice:compute:inference",
]


@cache
def artefact_bytes(seed: int = 0) -> bytes:
    """A small compiled model as a file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        artefact.save(compiled(seed), path)
        return path.read_bytes()


@cache
def key_bundle(number: int = 0) -> bytes:
    """Evaluation keys for it, as a client uploads them; another number, another client."""
    model = compiled()
    keys = client_keys(model)
    with keys.secret:
        return write_bundle([encode_public_key(keys.public, model.params), encode_evaluation_keys(keys.evaluation)])


class Caller:
    """Calls with one credential."""

    def __init__(self, live: LiveGateway, secret: str) -> None:
        self.live, self.secret = live, secret

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One JSON call."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.live.call(method, path, body, key=self.secret, headers=sent)

    async def ok(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """One JSON call that must succeed."""
        status, answer = await self.call(method, path, body, **headers)
        assert status < 300, answer
        return answer

    async def part(self, upload: str, number: int, data: bytes) -> tuple[int, Any]:
        """Send one part."""
        url = f"{self.live.url}/v1/uploads/{upload}/parts/{number}"
        async with self.live.http.put(url, data=data, headers={"authorization": f"Bearer {self.secret}"}) as answer:
            return answer.status, await answer.json()

    async def begin(self, kind: str, data: bytes) -> dict[str, Any]:
        """Announce an upload."""
        body = {"kind": kind, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        made: dict[str, Any] = await self.ok("POST", "/v1/uploads", body)
        return made

    async def upload(self, kind: str, data: bytes) -> str:
        """A whole upload; its id."""
        made = await self.begin(kind, data)
        for part in range(made["parts"]):
            at = part * made["part_bytes"]
            status, answer = await self.part(made["id"], part, data[at : at + made["part_bytes"]])
            assert status == 200, answer
        await self.ok("POST", f"/v1/uploads/{made['id']}/complete")
        return str(made["id"])

    async def model(self, name: str = "tiny", **members: Any) -> dict[str, Any]:
        """An encrypted model without a version."""
        made: dict[str, Any] = await self.ok("POST", "/v1/encrypted-models", {"name": name, **members})
        return made

    async def deploy(self, model: str, data: bytes | None = None) -> dict[str, Any]:
        """A version from an artefact, once it is ready or failed."""
        upload = await self.upload("model", artefact_bytes() if data is None else data)
        body = {"upload_id": upload, "kind": "artefact"}
        made = await self.ok("POST", f"/v1/encrypted-models/{model}/versions", body)
        return await self.ended(model, made["version"])

    async def ended(self, model: str, version: int) -> dict[str, Any]:
        """Wait for a version's end."""
        async with asyncio.timeout(60):
            while True:
                row: dict[str, Any] = await self.ok("GET", f"/v1/encrypted-models/{model}/versions/{version}")
                if row["ended_at_ms"] is not None:
                    return row
                await asyncio.sleep(0.05)

    async def token(self, model: str, **members: Any) -> tuple[dict[str, Any], Caller]:
        """An access token's view, and its holder."""
        body = {"name": "app", "user": "alice", **members}
        made = await self.ok("POST", f"/v1/encrypted-models/{model}/access-tokens", body)
        assert made["secret"].startswith(SecretPrefix.ACCESS_TOKEN)
        return made, Caller(self.live, made["secret"])


async def provider(live: LiveGateway, name: str = "provider") -> Caller:
    """A new account with a key that may manage everything but the gateway."""
    status, account = await live.call("POST", "/v1/accounts", {"name": name})
    assert status == 201, account
    return Caller(live, await live.new_key(account=account["id"], scopes=ALL))
