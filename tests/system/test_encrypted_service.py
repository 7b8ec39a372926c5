"""Encrypted inference as a service, whole: a provider deploys MNIST, a user asks in secret, a real worker answers.

Real HTTP, a real worker process, the public SDK on both sides. Nothing on the server's disk may hold the secret key.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples.models.data.packages import DataUnavailableError
from examples.models.mnist_mlp.run import EXAMPLE

from lattice.client.encrypted.aio import AsyncQueryClient
from lattice.client.encrypted.query import QueryClient
from lattice.client.management import ManagementClient
from lattice.core.errors import LatticeError
from lattice.fhe import artefact
from lattice.fhe.compiler.compile import compile as compile_model
from lattice.sealing.identity import IdentityKey
from tests.harness import LiveGateway, running_gateway

NAME = "mnist"
GRANT = 50_000_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Pixels that no calibration image has are of no interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def digits() -> Any:
    """MNIST; where the registry cannot be reached these tests are skipped by name."""
    try:
        return EXAMPLE.data()
    except DataUnavailableError as fault:
        pytest.skip(str(fault))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MNIST MLP as a provider compiles it on its own machine."""
    path = tmp_path_factory.mktemp("model") / "mnist.lattice"
    model = compile_model(EXAMPLE.folder / "model.onnx", digits().train[:200])
    artefact.save(model, path, IdentityKey.generate())
    return path


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LiveGateway]:
    """A gateway, and a home for the clients."""
    monkeypatch.setenv("LATTICE_CLIENT_HOME", str(tmp_path / "home"))
    async with running_gateway(tmp_path / "gateway") as live:
        yield live


def deploy(
    live: LiveGateway, path: Path, grant: int = GRANT, calibration: Path | None = None
) -> tuple[ManagementClient, str]:
    """Model, version, credits, token; the provider's client and the token's secret."""
    provider = ManagementClient(live.url, live.secret)
    provider.create_encrypted_model(NAME, weights_exposure="hosted")
    version = provider.upload_model(NAME, path, calibration=calibration)
    provider.wait_ready(NAME, version["version"], timeout_s=300)
    account = provider.key()["account"]
    provider.grant_credits(account, grant, "test")
    return provider, provider.tokens.create(NAME, "phone", user="alice")["secret"]


def ask(live: LiveGateway, path: Path, folder: Path, count: int, calibration: Path | None = None) -> dict[str, Any]:
    """The whole story; what a user and a provider see of it."""
    provider, token = deploy(live, path, calibration=calibration)
    images, truth = digits().test[:count], digits().test_labels[:count]
    seen: list[tuple[str, int, int]] = []
    with provider, QueryClient(token, base_url=live.url, folder=folder) as user:
        keys = user.keys.ensure(lambda *step: seen.append(step))
        assert keys == user.keys.ensure(), "nothing is made twice"
        with provider.workers.running(NAME) as (worker,):
            started = time.perf_counter()
            answer = user.query(images)
            seconds = time.perf_counter() - started
            asked = user.encrypt(images[:1])
            result = user.execute(asked)
            again = user.decrypt(result)
            stages = {stage for stage, _, _ in seen}
        ended = provider.workers.get(worker["id"])
        statement = provider.credits_statement()
        secret = user._session.keys.secret.coefficients().tobytes()  # type: ignore[union-attr]
    return {
        "labels": EXAMPLE.labels(answer.values).tolist(),
        "truth": truth.tolist(),
        "clear": EXAMPLE.labels(EXAMPLE.clear(images)).tolist(),
        "again": int(EXAMPLE.labels(again.values)[0]),
        "result": result,
        "stages": stages,
        "ended": ended,
        "statement": statement,
        "seconds": seconds,
        "secret": secret,
    }


@pytest.mark.timeout(300)
async def test_the_right_label_comes_back_and_nobody_else_could_read_it(
    live: LiveGateway, compiled: Path, tmp_path: Path
) -> None:
    seen = await asyncio.to_thread(ask, live, compiled, tmp_path / "user", 3)
    assert seen["labels"] == seen["clear"] == seen["truth"]
    assert seen["again"] == seen["truth"][0]
    assert seen["stages"] == {"make keys", "upload keys"}
    result = seen["result"]
    assert result.receipt.query == result.query_id
    assert result.receipt.milliseconds > 0
    ended = seen["ended"]
    assert (ended["state"], ended["reason"]) == ("stopped", "requested")
    assert ended["billed_ms"] > 0
    audit = await live.audit()
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())
    packed = bytes(np.packbits(np.frombuffer(seen["secret"], dtype=np.int8) > 0))
    for file in [path for path in (tmp_path / "gateway").rglob("*") if path.is_file()]:
        data = file.read_bytes()
        assert seen["secret"][:256] not in data, file
        assert packed[:64] not in data, file


@pytest.mark.timeout(300)
async def test_a_second_client_of_the_user_finds_its_keys_and_both_twins_agree(
    live: LiveGateway, compiled: Path, tmp_path: Path
) -> None:
    """The secret is read from disk again, under a passphrase; the asynchronous client asks many at once."""
    provider, token = await asyncio.to_thread(deploy, live, compiled)
    images, truth = digits().test[:6], digits().test_labels[:6].tolist()
    options: dict[str, Any] = {"base_url": live.url, "folder": tmp_path / "user", "passphrase": "correct horse"}
    with provider:
        async with AsyncQueryClient(token, **options) as user:
            first = await user.keys.ensure()
        workers = await asyncio.to_thread(running, provider)
        try:
            async with AsyncQueryClient(token, **options) as user:
                assert await user.keys.ensure() == first
                answer = await user.query(images)
        finally:
            await asyncio.to_thread(workers.close)
        assert EXAMPLE.labels(answer.values).tolist() == truth
        with pytest.raises(LatticeError) as caught:
            async with AsyncQueryClient(token, **{**options, "passphrase": "wrong"}) as stranger:
                await stranger.keys.ensure()
        assert caught.value.code == "secret_locked"


def running(provider: ManagementClient) -> ExitStack:
    """A worker that is active already; closing stops it. Blocks, so it belongs into a thread."""
    stack = ExitStack()
    stack.enter_context(provider.workers.running(NAME))
    return stack


@pytest.mark.timeout(120)
async def test_two_workers_compute_the_same_bits(live: LiveGateway, compiled: Path, tmp_path: Path) -> None:
    """`verify=2`: two processes that share the provider's secret, and nothing else, give equal ciphertexts."""

    def story() -> list[int]:
        provider, token = deploy(live, compiled)
        provider.update_encrypted_model(NAME, settings={"max_workers": 2})
        with provider, QueryClient(token, base_url=live.url, folder=tmp_path / "user") as user:
            user.keys.ensure()
            with provider.workers.running(NAME, count=2) as workers:
                assert len({worker["id"] for worker in workers}) == 2
                answer = user.query(digits().test[:1], verify=2)
        labels: list[int] = EXAMPLE.labels(answer.values).tolist()
        return labels

    assert await asyncio.to_thread(story) == digits().test_labels[:1].tolist()


@pytest.mark.timeout(120)
async def test_a_revoked_token_opens_nothing(live: LiveGateway, compiled: Path, tmp_path: Path) -> None:
    provider, secret = await asyncio.to_thread(deploy, live, compiled)

    def story() -> str:
        with provider, QueryClient(secret, base_url=live.url, folder=tmp_path / "user") as user:
            user.model()
            (token,) = list(provider.tokens.list(NAME))
            provider.tokens.revoke(NAME, token["id"])
            with pytest.raises(LatticeError) as caught:
                user.keys.ensure()
            return caught.value.code

    assert await asyncio.to_thread(story) == "revoked_grant"


@pytest.mark.timeout(600)
async def test_the_gateway_compiles_an_onnx_file_too(live: LiveGateway, tmp_path: Path) -> None:
    """Uploaded with calibration samples, compiled in a child process, and as right as what was compiled outside."""
    np.save(tmp_path / "calibration.npy", digits().train[:200])
    path = EXAMPLE.folder / "model.onnx"
    seen = await asyncio.to_thread(ask, live, path, tmp_path / "user", 2, tmp_path / "calibration.npy")
    assert seen["labels"] == seen["truth"]


@pytest.mark.timeout(120)
async def test_when_the_credits_run_out_the_worker_stops_by_itself(
    live: LiveGateway, compiled: Path, tmp_path: Path
) -> None:
    """Sixteen seconds' worth: one slice, the reserve, and nothing for a second slice."""

    def story() -> tuple[dict[str, Any], str, dict[str, Any]]:
        provider, token = deploy(live, compiled, 16_000)
        with provider, QueryClient(token, base_url=live.url, folder=tmp_path / "user") as user:
            provider.set_hardware_class("small", micro_per_second=1000, cores=1, memory_mib=2048)
            user.keys.ensure()
            (worker,) = provider.workers.start(NAME, hardware_class="small")
            provider.workers.wait_active(worker["id"])
            user.query(digits().test[:1])
            ended = provider.workers.wait_stopped(worker["id"], timeout_s=40)
            with pytest.raises(LatticeError) as caught:
                user.query(digits().test[:1])
            return ended, caught.value.code, provider.credits_statement()

    ended, code, statement = await asyncio.to_thread(story)
    assert (ended["state"], ended["reason"]) == ("stopped", "credits_exhausted")
    assert ended["billed_micro"] == ended["billed_ms"] * 1000 // 1000 <= 16_000
    assert code == "credits_exhausted"
    assert (statement["available_micro"], statement["held_micro"]) == (16_000 - ended["billed_micro"], 0)
    audit = await live.audit()
    assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())


@pytest.mark.timeout(120)
async def test_a_killed_worker_is_replaced_and_the_query_is_answered(
    live: LiveGateway, compiled: Path, tmp_path: Path
) -> None:
    """kill -9 at a moment when a query may be anywhere in it."""
    provider, token = await asyncio.to_thread(deploy, live, compiled)
    images, truth = digits().test[:4], digits().test_labels[:4].tolist()
    with provider:
        workers = await asyncio.to_thread(running, provider)
        try:
            async with AsyncQueryClient(token, base_url=live.url, folder=tmp_path / "user") as user:
                await user.keys.ensure()
                asking = asyncio.create_task(user.query(images))
                await asyncio.sleep(0.05)
                (process,) = live.gateway.workers.driver._local._children.values()  # type: ignore[attr-defined]
                process.kill()
                assert EXAMPLE.labels((await asking).values).tolist() == truth
        finally:
            await asyncio.to_thread(workers.close)


@pytest.mark.timeout(200)
async def test_the_same_story_by_commands(live: LiveGateway, compiled: Path, tmp_path: Path) -> None:
    """Every step as a command with --json, in processes of their own."""
    np.savez(tmp_path / "digits.npz", x=digits().test[:3], y=digits().test_labels[:3])
    environment = {**os.environ, "LATTICE_BASE_URL": live.url, "LATTICE_API_KEY": live.secret}

    async def command(*words: str, **more: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lattice.cli.main", *words, "--json",
            stdout=asyncio.subprocess.PIPE, env={**environment, **more},
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode == 0, (words, out)
        found: dict[str, Any] = json.loads(out)
        return found

    account = (await command("keys", "show"))["account"]
    await command("credits", "grant", account, "50", "--reason", "test")
    await command("models", "create", NAME)
    assert (await command("models", "upload", NAME, str(compiled)))["state"] == "ready"
    assert (await command("models", "list"))["models"][0]["version"] == 1
    token = await command("tokens", "create", NAME, "phone", "--user", "alice")
    (worker,) = (await command("workers", "start", NAME))["workers"]
    assert worker["state"] == "active"
    data = str(tmp_path / "digits.npz")
    answer = await command("query", data, LATTICE_ACCESS_TOKEN=token["secret"], LATTICE_KEY_PASSPHRASE="correct horse")
    assert np.argmax(answer["values"], axis=1).tolist() == answer["truth"]
    await command("workers", "stop", worker["id"])
    assert (await command("workers", "list", NAME))["workers"]
    assert (await command("credits", "statement"))["account"] == account
    assert (await command("tokens", "revoke", NAME, token["id"]))["state"] == "revoked"
