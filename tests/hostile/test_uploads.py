"""Uploads that lie, repeat, overlap, stop half-way or belong to somebody else; and `kill -9` between parts."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import aiohttp
import pytest

from lattice.gateway.encrypted import upload_rows
from tests.harness import LiveGateway, running_gateway
from tests.processes import gateway_process
from tests.support.platform import ALL, Caller, artefact_bytes, key_bundle, provider

PART = 1024


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_rows, "PART_BYTES", PART)


def parts_of(data: bytes) -> list[bytes]:
    return [data[at : at + PART] for at in range(0, len(data), PART)]


async def test_parts_come_in_any_order_at_once_and_more_than_once(live: LiveGateway) -> None:
    """The hash is over the file, not over how it came."""
    owner = await provider(live)
    data = os.urandom(10 * PART + 7)
    made = await owner.begin("model", data)
    assert (made["parts"], made["received"]) == (11, [])
    order = [*range(10, -1, -1), 3, 3, 10]
    answers = await asyncio.gather(*[owner.part(made["id"], part, parts_of(data)[part]) for part in order])
    assert {status for status, _ in answers} == {200}
    for _ in range(2):
        done = await owner.ok("POST", f"/v1/uploads/{made['id']}/complete")
        assert (done["state"], done["received"]) == ("complete", list(range(11)))
    blob = live.gateway.encrypted.blobs.path(hashlib.sha256(data).digest())
    assert blob.read_bytes() == data
    assert list((live.gateway.settings.data_dir / "uploads").iterdir()) == []


async def test_a_part_that_is_there_cannot_be_changed(live: LiveGateway) -> None:
    owner = await provider(live)
    data = os.urandom(2 * PART)
    made = await owner.begin("model", data)
    first, second = parts_of(data)
    assert (await owner.part(made["id"], 0, first))[0] == 200
    assert (await owner.part(made["id"], 0, second))[1]["error"] == "upload_conflict"
    assert (await owner.part(made["id"], 1, second))[0] == 200
    await owner.ok("POST", f"/v1/uploads/{made['id']}/complete")
    assert (await owner.part(made["id"], 0, second))[1]["error"] == "upload_conflict"
    assert (await owner.part(made["id"], 0, first))[0] == 200


@pytest.mark.parametrize("size", [0, PART - 1, PART + 1, 100 * PART])
async def test_a_part_of_another_size_is_refused_and_can_be_sent_again(live: LiveGateway, size: int) -> None:
    owner = await provider(live)
    data = os.urandom(2 * PART)
    made = await owner.begin("model", data)
    status, answer = await owner.part(made["id"], 0, bytes(size))
    assert (status, answer["error"]) == (400, "invalid_request")
    for part, piece in enumerate(parts_of(data)):
        assert (await owner.part(made["id"], part, piece))[0] == 200
    await owner.ok("POST", f"/v1/uploads/{made['id']}/complete")


async def test_parts_that_do_not_exist_and_missing_ones(live: LiveGateway) -> None:
    owner = await provider(live)
    made = await owner.begin("model", bytes(3 * PART))
    for part in (-1, 3, 2**40):
        assert (await owner.part(made["id"], part, bytes(PART)))[1]["error"] == "invalid_request"
    await owner.part(made["id"], 1, bytes(PART))
    status, answer = await owner.call("POST", f"/v1/uploads/{made['id']}/complete")
    assert (status, answer["error"], answer["missing"]) == (409, "upload_incomplete", [0, 2])
    body = {"upload_id": made["id"], "kind": "artefact"}
    model = await owner.model()
    status, answer = await owner.call("POST", f"/v1/encrypted-models/{model['id']}/versions", body)
    assert answer["error"] == "upload_incomplete"


async def test_other_bytes_than_announced_never_get_the_name(live: LiveGateway) -> None:
    """Else a stranger could put bytes of his own under the hash of somebody's model."""
    owner = await provider(live)
    data = os.urandom(2 * PART)
    made = await owner.begin("model", data)
    for part in range(2):
        await owner.part(made["id"], part, bytes(PART))
    status, answer = await owner.call("POST", f"/v1/uploads/{made['id']}/complete")
    assert (status, answer["error"]) == (422, "upload_mismatch")
    assert await live.gateway.encrypted.blobs.size(hashlib.sha256(data).digest()) is None
    assert (await owner.part(made["id"], 0, data[:PART]))[1]["error"] == "upload_expired"
    assert list((live.gateway.settings.data_dir / "uploads").iterdir()) == []


async def test_too_large_too_many_and_nonsense(live: LiveGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = await provider(live)
    good = {"kind": "model", "bytes": 1, "sha256": "0" * 64}
    for changed, code in (
        ({"bytes": 2**31 + 1}, "body_too_large"),
        ({"bytes": 0}, "invalid_request"),
        ({"bytes": -1}, "invalid_request"),
        ({"sha256": "g" * 64}, "invalid_request"),
        ({"kind": "firmware"}, "invalid_request"),
        ({"kind": "evaluation_keys"}, "invalid_request"),
    ):
        assert (await owner.call("POST", "/v1/uploads", good | changed))[1]["error"] == code
    monkeypatch.setattr(upload_rows, "MAX_OPEN", 3)
    for _ in range(3):
        await owner.ok("POST", "/v1/uploads", good)
    assert (await owner.call("POST", "/v1/uploads", good))[1]["error"] == "too_many_uploads"
    _, user = await owner.token((await owner.model())["id"])  # has room of its own
    await user.ok("POST", "/v1/uploads", good | {"kind": "evaluation_keys"})
    monkeypatch.setattr(upload_rows, "MAX_BYTES", 1)
    status, answer = await user.call("POST", "/v1/uploads", good | {"kind": "evaluation_keys"})
    assert (status, answer["error"]) == (429, "too_many_uploads")


async def test_a_caller_who_goes_away_within_a_part_leaves_it_open(live: LiveGateway) -> None:
    owner = await provider(live)
    data = os.urandom(2 * PART)
    made = await owner.begin("model", data)
    port = live.gateway.settings.port
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"PUT /v1/uploads/{made['id']}/parts/0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {owner.secret}\r\n"
    writer.write(f"{head}content-length: {PART}\r\n\r\n".encode() + data[:100])
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await asyncio.sleep(0.1)
    assert (await owner.ok("GET", f"/v1/uploads/{made['id']}"))["received"] == []
    for part, piece in enumerate(parts_of(data)):
        assert (await owner.part(made["id"], part, piece))[0] == 200
    await owner.ok("POST", f"/v1/uploads/{made['id']}/complete")


async def test_anybody_else_is_told_that_there_is_no_such_upload(live: LiveGateway) -> None:
    """Another account, a token of the account, another token of the same user."""
    owner, stranger = await provider(live), await provider(live, "stranger")
    model = await owner.model()
    _, alice = await owner.token(model["id"])
    _, also = await owner.token(model["id"])
    theirs = await owner.begin("model", b"x" * PART)
    hers = await alice.begin("evaluation_keys", b"x" * PART)
    for upload, others in ((theirs["id"], (stranger, alice)), (hers["id"], (stranger, owner, also))):
        for other in others:
            for method, path in (("GET", ""), ("POST", "/complete")):
                status, answer = await other.call(method, f"/v1/uploads/{upload}{path}")
                assert (status, answer["error"]) == (404, "not_found")
            assert (await other.part(upload, 0, b"x" * PART))[0] == 404
    _, nobody = await owner.token(model["id"], user=None)
    assert (await nobody.call("POST", "/v1/uploads", {}))[1]["error"] == "token_unassigned"


@pytest.mark.slow
async def test_kill_9_of_the_gateway_between_parts_and_within_one(tmp_path: Path) -> None:
    """What was acknowledged is there; what was not is sent again; the hash decides."""
    data = os.urandom(3 * 8 * 1024 * 1024 + 5)
    size = 8 * 1024 * 1024
    async with gateway_process(tmp_path) as process:
        key = await process.client.new_key(scopes=ALL)
        caller = Caller(process.client, key)  # type: ignore[arg-type]
        made = await caller.begin("model", data)
        assert (made["parts"], made["part_bytes"]) == (4, size)
        assert (await caller.part(made["id"], 2, data[2 * size : 3 * size]))[0] == 200
        torn = asyncio.create_task(caller.part(made["id"], 0, data[:size]))
        await asyncio.sleep(0.005)
        await process.kill()
        (broken,) = await asyncio.gather(torn, return_exceptions=True)
        assert isinstance(broken, aiohttp.ClientError | OSError | tuple)  # or it was quicker than the signal
        await process.up()
        found = await caller.ok("GET", f"/v1/uploads/{made['id']}")
        assert 2 in found["received"]
        for part in sorted(set(range(4)) - set(found["received"])):
            assert (await caller.part(made["id"], part, data[part * size : (part + 1) * size]))[0] == 200
        await process.kill()
        await process.up()
        assert (await caller.ok("POST", f"/v1/uploads/{made['id']}/complete"))["state"] == "complete"


async def test_a_death_between_a_row_and_its_file_leaves_no_file(tmp_path: Path) -> None:
    """Ended uploads and compilations of a killed gateway hold no disk; open uploads go on."""
    async with running_gateway(tmp_path) as live:
        owner = await provider(live)
        done, going = await owner.upload("model", os.urandom(PART)), await owner.begin("model", b"x" * 2 * PART)
        await owner.part(going["id"], 0, b"x" * PART)
        secret, port = live.secret, live.gateway.settings.port
    (tmp_path / "uploads" / done).write_bytes(b"what the kill kept from being removed")
    scratch = tmp_path / "compiling" / "tmp1"
    scratch.mkdir(parents=True)
    (scratch / "client").write_bytes(b"half")
    async with running_gateway(tmp_path, port=port, secret=secret) as live:
        await live.gateway.encrypted.uploads.expire()
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == [going["id"]]
        assert list((tmp_path / "compiling").glob("*")) == []
        owner.live = live
        await owner.part(going["id"], 1, b"x" * PART)
        assert (await owner.ok("POST", f"/v1/uploads/{going['id']}/complete"))["state"] == "complete"


async def test_bytes_that_nobody_names_are_swept_and_used_ones_stay(live: LiveGateway) -> None:
    owner = await provider(live)
    model = await owner.model()
    await owner.deploy(model["id"])
    _, user = await owner.token(model["id"])
    await user.ok("POST", "/v1/evaluation-keys", {"upload_id": await user.upload("evaluation_keys", key_bundle())})
    forgotten = await owner.begin("model", b"x" * PART)
    await owner.part(forgotten["id"], 0, b"x" * PART)
    await owner.ok("POST", f"/v1/uploads/{forgotten['id']}/complete")
    assert await live.gateway.encrypted.sweep(-1) == 0  # complete uploads may still be used

    def forget(conn: object) -> None:
        from lattice.gateway.store.encrypted_schema import uploads

        conn.execute(uploads.delete())  # type: ignore[attr-defined]

    await live.gateway.store.write(forget)
    assert await live.gateway.encrypted.sweep(3600) == 0
    assert await live.gateway.encrypted.sweep(-1) == 1
    blobs = live.gateway.encrypted.blobs
    for data in (artefact_bytes(), key_bundle()):
        assert await blobs.size(hashlib.sha256(data).digest()) == len(data)
    await owner.call("DELETE", f"/v1/encrypted-models/{model['id']}")
    assert await live.gateway.encrypted.sweep(-1) == 3
