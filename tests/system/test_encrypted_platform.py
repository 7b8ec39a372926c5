"""A provider deploys an encrypted model and hands out a token; an end user registers keys. Over real HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from lattice.core.errors import LatticeError
from lattice.fhe import artefact
from tests.harness import LiveGateway, running_gateway
from tests.support.platform import Caller, artefact_bytes, key_bundle, provider


async def test_from_an_uploaded_artefact_to_registered_keys(live: LiveGateway) -> None:
    """The whole control plane in the order in which a provider and a user walk through it."""
    owner = await provider(live)
    model = await owner.model(visibility="private", weights_exposure="hosted", settings={"max_workers": 2})
    assert (model["version"], model["latest"], model["settings"]["max_workers"]) == (None, None, 2)
    made, user = await owner.token(model["id"])
    assert (await user.call("GET", "/v1/encrypted-model"))[1]["error"] == "model_not_ready"
    version = await owner.deploy(model["id"])
    assert (version["state"], version["version"]) == ("ready", 1)
    assert version["artefact_sha256"] == hashlib.sha256(artefact_bytes()).hexdigest()
    report = await owner.ok("GET", f"/v1/encrypted-models/{model['id']}/versions/1/report")
    assert report["model"] == "tiny"

    opened = await user.ok("GET", "/v1/encrypted-model")
    assert (opened["model"], opened["version"], opened["evaluation_keys"]) == (model["id"], 1, None)
    async with live.http.get(
        f"{live.url}/v1/encrypted-model/client", headers={"authorization": f"Bearer {user.secret}"}
    ) as answer:
        part = await answer.read()
    assert hashlib.sha256(part).hexdigest() == opened["client_sha256"]
    view = artefact.client_view(part)
    assert (view.program_id, view.keys_id) == (opened["program_id"], opened["keys_id"])

    upload = await user.upload("evaluation_keys", key_bundle())
    keys = await user.ok("POST", "/v1/evaluation-keys", {"upload_id": upload}, idempotency_key="one")
    assert keys == await user.ok("POST", "/v1/evaluation-keys", {"upload_id": upload}, idempotency_key="one")
    assert (keys["current"], keys["user"], keys["bytes"]) == (True, "alice", len(key_bundle()))
    assert (await user.ok("GET", "/v1/encrypted-model"))["evaluation_keys"] == keys["id"]
    _, second = await owner.token(model["id"], name="phone")
    assert (await second.ok("GET", "/v1/encrypted-model"))["evaluation_keys"] == keys["id"]
    _, stranger = await owner.token(model["id"], user="bob")
    assert (await stranger.ok("GET", "/v1/encrypted-model"))["evaluation_keys"] is None
    assert (await owner.ok("GET", f"/v1/encrypted-models/{model['id']}/access-tokens/{made['id']}"))["user"] == "alice"


async def test_keys_stay_valid_when_only_weights_change(live: LiveGateway) -> None:
    """Redeploying by name needs nothing of the users."""
    owner = await provider(live)
    model = await owner.model("mine")
    await owner.deploy(model["id"])
    _, user = await owner.token(model["id"])
    keys = await user.ok(
        "POST", "/v1/evaluation-keys", {"upload_id": await user.upload("evaluation_keys", key_bundle())}
    )
    (found,) = (await owner.ok("GET", "/v1/encrypted-models?name=mine"))["data"]
    second = await owner.deploy(found["id"], artefact_bytes(1))
    assert (second["state"], second["version"]) == ("ready", 2)
    opened = await user.ok("GET", "/v1/encrypted-model")
    assert (opened["version"], opened["evaluation_keys"]) == (2, keys["id"])
    replaced = await user.upload("evaluation_keys", key_bundle(1))
    body = {"upload_id": replaced, "device": "phone", "replaces": keys["id"]}
    new = await user.ok("POST", "/v1/evaluation-keys", body)
    assert new["device"] == "phone"
    assert [row["id"] for row in (await user.ok("GET", "/v1/evaluation-keys"))["data"]] == [new["id"]]
    status, _ = await user.call("DELETE", f"/v1/evaluation-keys/{new['id']}")
    assert status == 204
    assert (await user.ok("GET", "/v1/encrypted-model"))["evaluation_keys"] is None


async def test_a_bad_artefact_fails_with_its_reason_and_the_earlier_version_serves_on(live: LiveGateway) -> None:
    owner = await provider(live)
    model = await owner.model()
    await owner.deploy(model["id"])
    damaged = bytearray(artefact_bytes(1))
    damaged[-5] ^= 1
    failed = await owner.deploy(model["id"], bytes(damaged))
    assert failed["state"] == "failed"
    assert failed["reason"].startswith("artefact_invalid: ")
    assert (await owner.ok("GET", f"/v1/encrypted-models/{model['id']}"))["version"] == 1


async def test_events_are_streamed_from_where_the_reader_left_and_posted_signed(tmp_path: Path) -> None:
    """A webhook that fails first is tried again; its signature is over time and body."""
    got: list[tuple[str, bytes]] = []

    async def hook(request: web.Request) -> web.Response:
        got.append((request.headers["lattice-signature"], await request.read()))
        return web.Response(status=500 if len(got) == 1 else 200)

    app = web.Application()
    app.router.add_post("/hook", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    async with running_gateway(tmp_path / "gateway", webhook_private_addresses=True) as live:
        owner = await provider(live)
        model = await owner.model(webhook_url=f"http://127.0.0.1:{port}/hook")
        await owner.deploy(model["id"])
        events = await read_events(owner, model["id"], 2)
        assert [event["event"] for event in events] == ["version.uploaded", "version.ready"]
        again = await read_events(owner, model["id"], 1, **{"last-event-id": events[0]["id"]})
        assert again == events[1:]
        async with asyncio.timeout(10):
            while len({body for _, body in got}) < 2:
                await asyncio.sleep(0.05)
    await runner.cleanup()
    for header, body in got:
        stamp, mac = (part.partition("=")[2] for part in header.split(","))
        wanted = hmac.digest(model["webhook_secret"].encode(), f"{stamp}.".encode() + body, "sha256").hex()
        assert hmac.compare_digest(mac, wanted)
    assert {json.loads(body)["state"] for _, body in got} == {"uploaded", "ready"}


async def read_events(caller: Caller, model: str, count: int, **headers: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    sent = {"authorization": f"Bearer {caller.secret}", **headers}
    async with (
        asyncio.timeout(20),
        caller.live.http.get(f"{caller.live.url}/v1/encrypted-models/{model}/events", headers=sent) as answer,
    ):
        event: dict[str, Any] = {}
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "id" in event:
                found.append(event)
                if len(found) == count:
                    return found
                event = {}
            else:
                event = {}
    raise AssertionError(found)


async def test_a_compilation_that_a_restart_interrupted_is_taken_up(tmp_path: Path) -> None:
    """The table is the queue: what was open when the gateway went away is done by the next one."""
    async with running_gateway(tmp_path / "gateway") as live:
        for task in asyncio.all_tasks():
            if task.get_name() == "compile":
                task.cancel()
        owner = await provider(live)
        model = await owner.model()
        upload = await owner.upload("model", artefact_bytes())
        body = {"upload_id": upload, "kind": "artefact"}
        made = await owner.ok("POST", f"/v1/encrypted-models/{model['id']}/versions", body)
        await asyncio.sleep(0.2)
        row = await owner.ok("GET", f"/v1/encrypted-models/{model['id']}/versions/1")
        assert row["state"] == made["state"] == "uploaded"
        secret = live.secret
    async with running_gateway(tmp_path / "gateway", secret=secret) as live:
        again = Caller(live, owner.secret)
        assert (await again.ended(model["id"], 1))["state"] == "ready"


async def test_encrypted_models_are_listed_and_refuse_plaintext(live: LiveGateway) -> None:
    owner = await provider(live)
    other = await provider(live, "other")
    private, public = await owner.model("a"), await owner.model("b", visibility="public")
    for model in (private, public):
        await owner.deploy(model["id"])
    listed = {row["id"]: row for row in (await owner.ok("GET", "/v1/models"))["data"] if row["kind"] == "encrypted"}
    assert {row["name"] for row in listed.values()} == {"a", "b"}
    seen = [row for row in (await other.ok("GET", "/v1/models"))["data"] if row["kind"] == "encrypted"]
    assert [row["id"] for row in seen] == [f"lattice:encrypted:{public['id']}"]
    for caller, model, code in (
        (owner, private, "encrypted_only"),
        (other, public, "encrypted_only"),
        (other, private, "model_not_found"),
    ):
        status, answer = await live.chat(f"lattice:encrypted:{model['id']}", key=caller.secret)
        assert answer["error"]["code"] == code, status


@pytest.mark.parametrize("kind", ["wrong list", "another model's", "damaged", "no bundle"])
async def test_keys_that_do_not_fit_are_refused_before_any_query(live: LiveGateway, kind: str) -> None:
    from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet
    from lattice.fhe.serialise.bundle import read_bundle, write_bundle
    from lattice.fhe.serialise.keys import encode_evaluation_keys
    from tests.support.compiled import compiled

    public, evaluation = map(bytes, read_bundle(key_bundle()))
    if kind == "wrong list":
        data = write_bundle([public, encode_evaluation_keys(EvaluationKeySet(compiled().params, []))])
    elif kind == "another model's":
        data = write_bundle([evaluation, public])
    elif kind == "damaged":
        data = write_bundle([public, evaluation[:-1] + bytes([evaluation[-1] ^ 1])])
    else:
        data = b"LFHE" * 1000
    owner = await provider(live)
    model = await owner.model()
    await owner.deploy(model["id"])
    _, user = await owner.token(model["id"])
    upload = await user.upload("evaluation_keys", data)
    status, answer = await user.call("POST", "/v1/evaluation-keys", {"upload_id": upload})
    assert (status, answer["error"]) in ((422, "keys_mismatch"), (400, "blob_invalid"))
    assert (await user.ok("GET", "/v1/evaluation-keys"))["data"] == []
    assert LatticeError(answer["error"])


@pytest.mark.slow
async def test_an_uploaded_onnx_model_is_compiled_with_its_calibration(live: LiveGateway) -> None:
    """States and steps are told as they happen; the artefact that comes out is one that a worker loads."""
    onnx = pytest.importorskip("onnx")
    path = Path(__file__).parents[2] / "examples" / "models" / "breast_cancer" / "model.onnx"
    features = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[-1].dim_value
    samples = np.random.default_rng(0).normal(size=(64, features))
    buffer = io.BytesIO()
    np.save(buffer, samples)
    owner = await provider(live)
    model = await owner.model()
    body = {
        "upload_id": await owner.upload("model", path.read_bytes()),
        "calibration_upload_id": await owner.upload("calibration", buffer.getvalue()),
        "kind": "onnx",
        "options": {"allow_inaccurate": True},
    }
    async with asyncio.timeout(60):
        reading = asyncio.create_task(read_events(owner, model["id"], 3))
        made = await owner.ok("POST", f"/v1/encrypted-models/{model['id']}/versions", body)
        version = await owner.ended(model["id"], made["version"])
        assert (version["state"], version["reason"]) == ("ready", None)
        events = await reading
    assert [event["event"] for event in events] == ["version.uploaded", "version.compiling", "version.ready"]
    kept = live.gateway.encrypted.blobs.path(bytes.fromhex(version["artefact_sha256"]))
    assert artefact.load(kept).program.id == version["program_id"]
    refused = body | {"options": {"security": "none"}}
    made = await owner.ok("POST", f"/v1/encrypted-models/{model['id']}/versions", refused)
    failed = await owner.ended(model["id"], made["version"])
    assert failed["reason"].startswith("invalid_parameters: ")
