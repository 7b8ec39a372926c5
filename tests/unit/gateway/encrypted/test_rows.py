"""Rows of encrypted inference on every database: numbers, states, events, tokens, keys, references."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.core.ids import is_id
from lattice.gateway.encrypted import evaluation_key_rows, event_rows, model_rows, references, token_rows
from lattice.gateway.encrypted import upload_rows as up
from lattice.gateway.encrypted import version_rows as versions
from lattice.gateway.identity import Pepper, create_account
from lattice.gateway.store import Store
from tests.support.databases import KINDS, fresh_database
from tests.support.ledger import NOW, refusal


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with fresh_database(request.param, tmp_path) as url:
        opened = await Store.open(url)
        yield opened
        await opened.close()


def model(conn: Connection, name: str = "m", **members: object) -> model_rows.ModelRow:
    owner = create_account(conn, "someone", NOW)
    new = model_rows.NewModel(account_id=owner.id, name=name, **members)  # type: ignore[arg-type]
    return model_rows.create_model(conn, new, NOW)


NEW = versions.NewVersion(
    source_sha256=b"s" * 32, source_kind="onnx", calibration_sha256=b"c" * 32, options="{}", gateway_id="gw_one"
)
READY = versions.Ready(
    artefact_sha256=b"a" * 32,
    artefact_bytes=10,
    client_sha256=b"v" * 32,
    program_id="prg_x",
    parameters_id="par_x",
    keys_hash=b"k" * 16,
    key_bytes=2**40,
    report="{}",
)


async def test_a_version_goes_through_its_states_once(store: Store) -> None:
    """Every change is one event; a change that comes too late changes nothing and tells nothing."""
    row = await store.write(model, webhook_url="https://x", webhook_secret=b"s")
    made = await store.write(versions.create_version, row, NEW, NOW)
    assert (made.number, made.state, made.ended_at_ms) == (1, "uploaded", None)
    assert await store.write(versions.begin_version, row, 1, NOW)
    assert await store.write(versions.begin_version, row, 1, NOW) is None
    ready = await store.write(versions.finish_version, row, 1, READY, NOW)
    assert ready is not None
    assert (ready.state, ready.key_bytes, ready.keys_hash) == ("ready", 2**40, b"k" * 16)
    assert await store.write(versions.fail_version, row, 1, "late", NOW) is None
    await store.write(versions.create_version, row, NEW, NOW)
    failed = await store.write(versions.fail_version, row, 2, "model_too_deep: …", NOW)
    assert failed is not None
    current = await store.read(versions.ready_version, row.id)
    assert (failed.state, current) == ("failed", ready)
    told = await store.read(event_rows.events_after, row.id, "")
    assert [event.kind.partition(".")[2] for event in told] == ["uploaded", "compiling", "ready", "uploaded", "failed"]
    assert [event.id for event in told] == sorted({event.id for event in told})
    assert await store.read(event_rows.events_after, row.id, told[2].id) == told[3:]
    assert {event.id for event in await store.read(event_rows.due_events, NOW)} == {event.id for event in told}
    assert await store.read(versions.open_versions, "gw_one") == []


async def test_numbers_are_given_once(store: Store) -> None:
    row = await store.write(model)
    made = await asyncio.gather(*[store.write(versions.create_version, row, NEW, NOW) for _ in range(20)])
    assert sorted(version.number for version in made) == list(range(1, 21))
    assert [open.number for open in await store.read(versions.open_versions, "gw_one")]
    page = await store.read(versions.list_versions, row.id, 5, 10)
    assert [version.number for version in page] == [4, 3, 2, 1]


async def test_tokens_open_by_hash_until_their_model_is_deleted(store: Store) -> None:
    pepper = Pepper(bytes(32))
    row = await store.write(model)
    new = token_rows.NewToken(account_id=row.account_id, model_id=row.id, name="app", budget_micro=2**50)
    made, secret = await store.write(token_rows.create_token, pepper, new, NOW)
    assert await store.read(token_rows.find_token, pepper.hash(secret)) == made
    assert secret not in repr(made)
    await store.write(token_rows.touch_tokens, [(made.id, NOW + 5), (made.id, NOW + 1)])
    found = await store.read(token_rows.get_token, row.account_id, row.id, made.id)
    assert found.last_used_at_ms == NOW + 5
    await store.write(model_rows.delete_model, row.account_id, row.id, NOW)
    assert await store.read(token_rows.find_token, pepper.hash(secret)) is None


def some_keys(row: model_rows.ModelRow, user: str, blob: bytes, **more: Any) -> evaluation_key_rows.NewKeys:
    members: dict[str, Any] = {"keys_hash": b"k" * 16, "device": f"device {blob!r}", **more}
    return evaluation_key_rows.NewKeys(
        account_id=row.account_id,
        model_id=row.id,
        user=user,
        parameters_id="par_x",
        blob_sha256=blob * 32,
        public_key_sha256=b"p" * 32,
        size=5,
        **members,
    )


async def test_each_device_has_a_set_and_replaces_only_its_own(store: Store) -> None:
    row = await store.write(model)

    async def register(user: str, blob: bytes, replaces: str | None = None, **more: Any) -> evaluation_key_rows.KeysRow:
        return await store.write(evaluation_key_rows.register_keys, some_keys(row, user, blob, **more), NOW, replaces)

    first = await register("alice", b"1")
    assert await register("alice", b"1") == first
    other = await register("alice", b"1", keys_hash=b"o" * 16)
    bobs = await register("bob", b"1")
    second = await register("alice", b"2")
    third = await register("alice", b"3", replaces=second.id)
    assert await register("alice", b"3", replaces=second.id) == third  # repeated
    assert await register("alice", b"1", replaces=bobs.id) == first  # another's set is not touched
    listed = await store.read(evaluation_key_rows.list_keys, row.id, "alice")
    assert {found.id: found.device for found in listed} == {each.id: each.device for each in (third, first, other)}
    fitting = evaluation_key_rows.fitting_keys
    found = await store.read(fitting, row.id, "alice", b"k" * 16)
    assert {each.id for each in found} == {third.id, first.id}
    assert await store.read(fitting, row.id, "bob", b"k" * 16) == [bobs]
    assert await store.read(fitting, row.id, "bob", b"x" * 16) == []
    hashes = [b"1" * 32, b"2" * 32, b"3" * 32]
    assert await store.read(references.unused, hashes) == [b"2" * 32]
    for found, user in ((other, "alice"), (first, "alice"), (bobs, "bob")):
        await store.write(evaluation_key_rows.delete_keys, row.id, user, found.id, NOW)
    assert await store.read(references.unused, hashes) == [b"1" * 32, b"2" * 32]
    with pytest.raises(LatticeError, match="not_found"):
        await store.write(evaluation_key_rows.delete_keys, row.id, "bob", third.id, NOW)


async def test_the_ninth_set_of_a_user_has_no_place(store: Store) -> None:
    row, register = await store.write(model), evaluation_key_rows.register_keys
    made = [await store.write(register, some_keys(row, "alice", b"%d" % n), NOW) for n in range(8)]
    with pytest.raises(LatticeError) as caught:
        await store.write(register, some_keys(row, "alice", b"x"), NOW)
    assert caught.value.code == "too_many_keys"
    await store.write(register, some_keys(row, "bob", b"x"), NOW)
    await store.write(register, some_keys(row, "alice", b"x", keys_hash=b"o" * 16), NOW)
    assert await store.write(register, some_keys(row, "alice", b"0"), NOW) == made[0]
    await store.write(register, some_keys(row, "alice", b"y"), NOW, made[3].id)  # in the place of one
    await store.write(evaluation_key_rows.delete_keys, row.id, "alice", made[4].id, NOW)
    await store.write(register, some_keys(row, "alice", b"z"), NOW)


async def test_parts_are_marked_at_once_and_uploads_expire(store: Store) -> None:
    new = up.NewUpload(account_id="acc_x", token_id=None, kind="model", size=20 * up.PART_BYTES + 1, sha256=b"h" * 32)
    row = await store.write(up.create_upload, new, NOW)
    assert (row.parts, row.part_size(0), row.part_size(20)) == (21, up.PART_BYTES, 1)
    await asyncio.gather(*[store.write(up.mark_part, "acc_x", row.id, part) for part in range(0, 21, 2)])
    found = await store.read(up.get_upload, "acc_x", row.id)
    assert found.missing() == list(range(1, 21, 2))
    for other, token in (("acc_y", None), ("acc_x", "tok_1")):
        with pytest.raises(LatticeError, match="not_found"):
            await store.read(up.get_upload, other, row.id, token)
    assert await store.write(up.expire_uploads, NOW + up.LIFE_MS - 1) == []
    assert await store.write(up.expire_uploads, NOW + up.LIFE_MS) == [row.id]
    with pytest.raises(LatticeError, match="upload_expired"):
        await store.read(up.complete_upload, "acc_x", row.id, ("model",))
    await store.write(up.expire_uploads, NOW + up.LIFE_MS + up.KEEP_MS)
    with pytest.raises(LatticeError, match="not_found"):
        await store.read(up.get_upload, "acc_x", row.id)


def test_a_name_is_free_again_after_deletion(conn: Connection) -> None:
    row = model(conn)
    new = model_rows.NewModel(account_id=row.account_id, name="m")
    assert refusal(conn, model_rows.create_model, new, NOW) == "name_taken"
    model_rows.delete_model(conn, row.account_id, row.id, NOW)
    again = model_rows.create_model(conn, new, NOW)
    assert is_id(model_rows.Prefix.MODEL, again.id)
    assert refusal(conn, model_rows.delete_model, row.account_id, row.id, NOW) == "not_found"


def test_events_keep_their_order_when_the_clock_goes_back(conn: Connection) -> None:
    row = model(conn)
    ids = [
        event_rows.add_event(conn, row.account_id, row.id, "x", {}, NOW - number, hooked=False).id
        for number in range(50)
    ]
    assert ids == sorted(ids)
    assert event_rows.due_events(conn, NOW) == []
