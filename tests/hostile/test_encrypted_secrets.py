"""Who takes the server's disk, or reads the memory of its processes, finds no user's secret and no credential there.

A whole story by real processes: keys made, uploaded, a question asked and answered. Then every byte of the gateway's
folder (database, blobs, uploads, logs, the workers' cache) is searched, and the memory of the gateway and of the
worker. Each search is shown to find what is really there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lattice.core.ids import unb64url
from lattice.fhe.keys.store_format import open_with_key
from lattice.gateway.workers.drivers import CREDENTIAL
from tests.support.encrypted_asker import IDEMPOTENCY_KEY, SAMPLES
from tests.support.encrypted_stack import Stack, encrypted_stack
from tests.support.secret_search import find, found_in_files, secret_forms

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]


class Story(NamedTuple):
    """What happened, with the user's process still alive."""

    stack: Stack
    user: asyncio.subprocess.Process
    folder: Path
    token: str
    values: np.ndarray


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    async with encrypted_stack(tmp_path / "server") as stack:
        token, folder = await stack.new_token("alice"), tmp_path / "user"
        user = await stack.start_asker(token["secret"], folder, "--stay")
        try:
            assert user.stdout is not None
            said = json.loads(await asyncio.wait_for(user.stdout.readline(), 60))
            yield Story(stack, user, folder, token["secret"], np.asarray(said["values"]))
        finally:
            user.kill()
            await user.communicate()


def secret_needles(story: Story) -> dict[str, bytes]:
    """The user's secret key, which only the test may open, in every form."""
    (sealed,) = story.folder.glob("*/secret.key")
    with open_with_key(sealed.read_bytes(), (story.folder / "wrapping.key").read_bytes()) as secret:
        return secret_forms(secret)


def plain_needles(story: Story) -> dict[str, bytes]:
    """What was asked and what was answered, as numbers."""
    kinds = {"float64": np.float64, "float32": np.float32}
    return {
        f"{name} as {kind}": np.ascontiguousarray(values, dtype=dtype).tobytes()
        for name, values in (("samples", SAMPLES), ("answer", story.values))
        for kind, dtype in kinds.items()
    }


def credential_needles(story: Story, worker: int) -> dict[str, bytes]:
    """Credentials as they are shown, their random part as text and as bytes, and hashes that need no pepper."""
    environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    (credential,) = (
        item.partition(b"=")[2].decode() for item in environment if item.startswith(f"{CREDENTIAL}=".encode())
    )
    shown = {"token": story.token, "owner's key": story.stack.gateway.client.secret, "worker": credential}
    out = {"idempotency key": IDEMPOTENCY_KEY.encode()}
    for name, text in shown.items():
        random = text[-43:]  # 32 bytes in unpadded base64url
        digest = hashlib.sha256(text.encode())
        out |= {
            name: text.encode(),
            f"{name}, random part": random.encode(),
            f"{name}, raw": unb64url(random),
            f"{name}, hash": digest.digest(),
            f"{name}, hash in hex": digest.hexdigest().encode(),
        }
    return out


@pytest.mark.timeout(180)
async def test_no_secret_is_on_the_server_s_disk_or_in_its_memory(story: Story) -> None:
    stack = story.stack
    (worker,) = stack.worker_pids()
    secrets = secret_needles(story)
    needles = secrets | plain_needles(story) | credential_needles(story, worker)
    assert len(needles) > 40
    server = stack.gateway.folder
    assert [path for path in (server / "data" / "workers").rglob("*") if path.is_file()], "no worker's files to search"
    assert found_in_files(server, needles) == {}
    for pid in (stack.gateway.pid, worker):
        assert find(pid, secrets) == {}

    # Both searches would have found it: the user's own process has the secret, and a planted file has everything.
    assert "s as bytes" in find(story.user.pid, secrets)
    planted = server / "data" / "blobs" / "incoming" / "planted"
    planted.write_bytes(b"odd".join([b"", *needles.values(), b""]))
    assert set(found_in_files(server, needles)) == set(needles)
    planted.unlink()
    await stack.require_true_books()
