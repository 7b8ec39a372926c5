"""Keys and ciphertexts that are damaged, or meant for something else, on their whole way: gateway, queue, real worker.

Each is refused with a code of the catalogue before anything is evaluated, in one attempt; the worker lives on, the next
honest question is answered, and nobody pays for more than the worker's time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from sqlalchemy import Connection, select

from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet, KeySpec
from lattice.fhe.client_side import ClientKeys, client_keys, decrypt, encrypt
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.serialise.bundle import read_bundle, write_bundle
from lattice.fhe.serialise.ciphertexts import decode_ciphertext, encode_ciphertext
from lattice.fhe.serialise.frame import Kind
from lattice.fhe.serialise.keys import encode_evaluation_keys, encode_public_key
from lattice.gateway.encrypted.evaluation_key_rows import NewKeys, register_keys
from lattice.gateway.store.encrypted_schema import access_tokens
from lattice.gateway.workers.rows import get_worker
from tests.callers import fund
from tests.harness import LiveGateway
from tests.support import compiled as tiny
from tests.support.damage import flipped, frame, too_large
from tests.support.encrypted_asker import SAMPLES
from tests.support.encrypted_stack import right, wanted
from tests.support.fhe import deep, small
from tests.support.platform import Caller, artefact_bytes

QUERIES = "/v1/encrypted-queries"
MODEL = tiny.compiled()
KEYS = client_keys(MODEL)
STRANGER = KeyGenerator(deep())
STRANGE_SECRET = STRANGER.secret_key()


class Served(NamedTuple):
    """A deployed model, one real worker of the fleet, and a user with good keys."""

    owner: Caller
    user: Caller
    account: str
    model: str
    worker: str
    token: str


@pytest.fixture
async def served(live: LiveGateway) -> Served:
    owner = Caller(live, live.secret)
    await fund(live, 10_000_000)
    model = (await owner.model(weights_exposure="hosted"))["id"]
    assert (await owner.deploy(model, artefact_bytes()))["state"] == "ready"
    made, user = await owner.token(model)
    await register(user, good_keys())
    started = await owner.ok("POST", f"/v1/encrypted-models/{model}/workers", {})
    account = (await owner.ok("GET", "/v1/account"))["id"]
    return Served(owner, user, account, model, started["data"][0]["id"], made["id"])


async def register(user: Caller, data: bytes) -> dict[str, Any]:
    """Upload keys whole, with their right hash, and register them."""
    upload = await user.upload("evaluation_keys", data)
    return dict((await user.call("POST", "/v1/evaluation-keys", {"upload_id": upload}))[1])


async def ask(user: Caller, data: bytes, **params: str) -> tuple[int, bytes]:
    """A query that waits for its end."""
    headers = {"authorization": f"Bearer {user.secret}"}
    async with user.live.http.post(user.live.url + QUERIES, data=data, params=params, headers=headers) as answer:
        return answer.status, await answer.read()


def code(body: bytes) -> str:
    return str(msgspec.json.decode(body)["error"])


def objects_of(keys: ClientKeys) -> tuple[bytes, bytes]:
    return encode_public_key(keys.public, MODEL.params), encode_evaluation_keys(keys.evaluation)


def good_keys() -> bytes:
    return write_bundle(objects_of(KEYS))


def question() -> bytes:
    """One honest ciphertext."""
    (made,) = encrypt(MODEL.client, MODEL.params, KEYS.secret, SAMPLES)
    return encode_ciphertext(made, MODEL.params)


def at_level(level: int) -> bytes:
    made = SecretKeyEncryptor(KEYS.secret).encrypt_values(np.ones(8), level=level, scale=small().scale)
    return encode_ciphertext(made, small())


def of_three_components() -> bytes:
    (made,) = encrypt(MODEL.client, MODEL.params, KEYS.secret, SAMPLES)
    whole = made.expand(MODEL.params)
    polys = np.concatenate([whole.components, whole.components[:1]])
    return encode_ciphertext(Ciphertext(whole.params_id, whole.level, whole.scale, polys, whole.encoding), MODEL.params)


def of_another_ring() -> bytes:
    return encode_ciphertext(SecretKeyEncryptor(STRANGE_SECRET).encrypt_values(np.ones(8)), deep())


async def require_served(served: Served, truth: np.ndarray, **params: str) -> None:
    """The same worker process still answers rightly."""
    status, body = await ask(served.user, write_bundle([question()]), **params)
    assert status == 200, body
    found = [decode_ciphertext(each, MODEL.params) for each in read_bundle(body)]
    assert right(decrypt(MODEL.client, MODEL.params, KEYS.secret, found).values, truth)
    row = await served.owner.live.gateway.store.read(get_worker, served.worker)
    assert (row.state, row.restarts) == ("active", 0)


async def require_true_books(served: Served, answered: int) -> None:
    """The token was charged for answers alone, the provider for no more than what was sold."""
    live, columns = served.owner.live, access_tokens.c
    count = await live.gateway.store.read(
        lambda conn: conn.execute(select(columns.queries).where(columns.id == served.token)).scalar()
    )
    assert count == answered
    await served.owner.ok("DELETE", f"/v1/workers/{served.worker}")
    audit = await live.audit()
    assert (audit.sum_micro, audit.faults) == (0, ())
    row = await live.gateway.store.read(get_worker, served.worker)
    assert row.active_at_ms is not None
    assert row.last_seen_ms is not None
    assert row.billed_ms <= row.last_seen_ms - row.active_at_ms
    assert row.billed_micro == row.billed_ms * row.price_micro_per_second // 1000


def evaluated(served: Served, query: str) -> bool:
    """Whether the worker's log says that it computed an answer."""
    log = served.owner.live.gateway.settings.data_dir / "workers" / f"{served.worker}.log"
    return any("query.answered" in line and query in line for line in log.read_text().splitlines())


# --- ciphertexts ---------------------------------------------------------------------------------------------

CIPHERTEXTS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "a flipped bit": (lambda: write_bundle([flipped(question())]), {"blob_invalid"}),
    "residues above the modulus": (lambda: write_bundle([frame(question(), body=too_large)]), {"blob_invalid"}),
    "a lower level": (lambda: write_bundle([at_level(0)]), {"scale_mismatch"}),
    "a level of a lie": (lambda: write_bundle([frame(question(), level=0)]), {"blob_invalid"}),
    "a level that there is not": (lambda: write_bundle([frame(question(), level=99)]), {"blob_invalid"}),
    "a negative level": (lambda: write_bundle([frame(question(), level=-1)]), {"blob_invalid"}),
    "another scale": (lambda: write_bundle([frame(question(), scale="3039/1")]), {"scale_mismatch"}),
    "no scale": (lambda: write_bundle([frame(question(), scale="1/0")]), {"blob_invalid"}),
    "a negative scale": (lambda: write_bundle([frame(question(), scale="-5")]), {"blob_invalid"}),
    "another encoding": (lambda: write_bundle([frame(question(), encoding="coefficients")]), {"scale_mismatch"}),
    "no such encoding": (lambda: write_bundle([frame(question(), encoding="x")]), {"blob_invalid"}),
    "other parameters by name": (lambda: write_bundle([frame(question(), params=deep().id)]), {"parameters_mismatch"}),
    "another ring": (lambda: write_bundle([of_another_ring()]), {"parameters_mismatch"}),
    "three components": (lambda: write_bundle([of_three_components()]), {"scale_mismatch"}),
    "a public key": (lambda: write_bundle([objects_of(KEYS)[0]]), {"blob_invalid"}),
    "a kind that there is not": (lambda: write_bundle([frame(question(), kind=77)]), {"blob_invalid"}),
    "a secret key's kind": (lambda: write_bundle([frame(question(), kind=Kind.SECRET_KEY)]), {"blob_invalid"}),
    "two instead of one": (lambda: write_bundle([question(), question()]), {"blob_invalid", "circuit_invalid"}),
    "noise": (lambda: write_bundle([os.urandom(30_000)]), {"blob_invalid"}),
    "an empty object": (lambda: write_bundle([b""]), {"blob_invalid"}),
    "a frame cut short": (lambda: write_bundle([question()[:-1]]), {"blob_invalid"}),
    "a frame that claims 2^63 bytes": (lambda: write_bundle([frame(question(), claims=1 << 63)]), {"blob_invalid"}),
    "an unknown member": (lambda: write_bundle([frame(question(), more=1)]), {"blob_invalid"}),
    # Of these the gateway itself sees that they are no bundle.
    "none at all": (lambda: write_bundle([]), {"blob_invalid"}),
    "nothing": (lambda: b"", {"blob_invalid"}),
    "a bundle cut short": (lambda: write_bundle([question()])[:-1], {"blob_invalid"}),
    "a bundle with an appendix": (lambda: write_bundle([question()]) + b"x", {"blob_invalid"}),
    "an object of 2^64 - 1 bytes": (lambda: (1).to_bytes(4, "little") + b"\xff" * 8 + question(), {"blob_invalid"}),
    "four billion objects": (lambda: b"\xff" * 4 + question(), {"blob_invalid"}),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_damaged_and_mismatched_ciphertexts(served: Served) -> None:
    truth, found = wanted(), {}
    await require_served(served, truth)
    for name, (make, _) in CIPHERTEXTS.items():
        status, body = await ask(served.user, make())
        assert 400 <= status < 600, name
        found[name] = code(body)
    assert {name: found[name] for name, (_, codes) in CIPHERTEXTS.items() if found[name] not in codes} == {}
    await require_served(served, truth)
    rows = (await served.user.ok("GET", f"{QUERIES}?limit=100"))["data"]
    failed = [row for row in rows if row["state"] != "completed"]
    assert len(failed) == len(CIPHERTEXTS) - 6, "six never became queries"
    assert {(row["state"], row["attempt"]) for row in failed} == {("failed", 1)}, "nobody could have done better"
    assert [row["id"] for row in failed if evaluated(served, row["id"])] == []
    await require_true_books(served, answered=2)


# --- keys ----------------------------------------------------------------------------------------------------


def other_rotation() -> bytes:
    """Keys of another program over the same ring."""
    keys = KeyGenerator(small()).evaluation_keys(KEYS.secret, [KeySpec.rotation(2, 1, small())])
    return write_bundle([objects_of(KEYS)[0], encode_evaluation_keys(keys)])


def other_ring() -> bytes:
    keys = STRANGER.evaluation_keys(STRANGE_SECRET, [KeySpec.rotation(1, deep().max_level, deep())])
    public = encode_public_key(STRANGER.public_key(STRANGE_SECRET), deep())
    return write_bundle([public, encode_evaluation_keys(keys)])


def none_at_all() -> bytes:
    return write_bundle([objects_of(KEYS)[0], encode_evaluation_keys(EvaluationKeySet(small(), []))])


def pair(public: bytes | None = None, keys: bytes | None = None) -> bytes:
    good = objects_of(KEYS)
    return write_bundle([public or good[0], keys or good[1]])


def shared_seed() -> bytes:
    """An evaluation key under the public key's seed: their difference would be a relation between secrets."""
    public = objects_of(KEYS)[0]
    seed = public[-16 - len(frame_body(public)) : -16][:32]

    def take(inside: bytearray) -> None:
        inside[:32] = seed

    return pair(keys=frame(objects_of(KEYS)[1], body=take))


def frame_body(data: bytes) -> bytes:
    kept: list[bytes] = []
    frame(data, body=lambda inside: kept.append(bytes(inside)))
    return kept[0]


BUNDLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a flipped bit": (lambda: flipped(good_keys()), "blob_invalid"),
    "a flipped bit of the public key": (lambda: pair(public=flipped(objects_of(KEYS)[0])), "blob_invalid"),
    "residues above the modulus": (lambda: pair(keys=frame(objects_of(KEYS)[1], body=too_large)), "blob_invalid"),
    "another program's keys": (other_rotation, "keys_mismatch"),
    "another ring's keys": (other_ring, "keys_mismatch"),
    "another ring's public key": (
        lambda: pair(public=encode_public_key(STRANGER.public_key(STRANGE_SECRET), deep())),
        "keys_mismatch",
    ),
    "no keys": (none_at_all, "keys_mismatch"),
    "keys of a lie": (lambda: pair(keys=frame(objects_of(KEYS)[1], keys=[[3, 0]])), "keys_mismatch"),
    "one object": (lambda: write_bundle(objects_of(KEYS)[:1]), "blob_invalid"),
    "three objects": (lambda: write_bundle([*objects_of(KEYS), b"x"]), "blob_invalid"),
    "the wrong way round": (lambda: write_bundle(objects_of(KEYS)[::-1]), "blob_invalid"),
    "cut short": (lambda: good_keys()[:-1], "blob_invalid"),
    "an appendix": (lambda: good_keys() + b"x", "blob_invalid"),
    "a frame that claims 2^63 bytes": (lambda: pair(keys=frame(objects_of(KEYS)[1], claims=1 << 63)), "blob_invalid"),
    "an object of 2^64 - 1 bytes": (lambda: (2).to_bytes(4, "little") + b"\xff" * 8 + bytes(90), "blob_invalid"),
    "two keys under one seed": (shared_seed, "blob_invalid"),
    "noise": (lambda: os.urandom(10_000), "blob_invalid"),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_damaged_and_mismatched_keys_are_never_registered(live: LiveGateway) -> None:
    """Their hash is right: it is that of the damaged bytes."""
    owner = Caller(live, live.secret)
    model = (await owner.model(weights_exposure="hosted"))["id"]
    await owner.deploy(model, artefact_bytes())
    _, user = await owner.token(model)
    found = {name: (await register(user, make())).get("error") for name, (make, _) in BUNDLES.items()}
    assert {name: found[name] for name, (_, wanted) in BUNDLES.items() if found[name] != wanted} == {}
    assert (await user.ok("GET", "/v1/evaluation-keys"))["data"] == []
    assert "id" in await register(user, good_keys())


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_worker_checks_keys_whatever_the_gateway_let_through(served: Served) -> None:
    """The same bundles, put where only checked ones should be."""
    truth, live = wanted(), served.owner.live
    blobs = live.gateway.encrypted.blobs
    good = (await served.user.ok("GET", "/v1/evaluation-keys"))["data"][0]["id"]

    async def force(data: bytes, number: int) -> str:
        async def pieces() -> AsyncIterator[bytes]:
            yield data

        blob = await blobs.put(pieces(), 1 << 30)

        def write(conn: Connection) -> str:
            new = NewKeys(
                account_id=served.account,
                model_id=served.model,
                user="alice",
                parameters_id=MODEL.params.id,
                keys_hash=number.to_bytes(16, "big"),
                blob_sha256=blob.sha256,
                public_key_sha256=b"p" * 32,
                size=blob.bytes,
            )
            return register_keys(conn, new, live.gateway.clock.now_ms()).id

        return str(await live.gateway.store.write(write))

    found = {}
    for number, (name, (make, _)) in enumerate(BUNDLES.items()):
        keys = await force(make(), number)
        await live.gateway.store.write(point_at, keys, served.model)
        status, body = await ask(served.user, write_bundle([question()]), evaluation_keys=keys)
        assert 400 <= status < 600, name
        found[name] = code(body)
    known = {"blob_invalid", "parameters_mismatch", "missing_evaluation_key"}
    assert {name: said for name, said in found.items() if said not in known} == {}
    rows = (await served.user.ok("GET", f"{QUERIES}?limit=100"))["data"]
    assert [row["id"] for row in rows if row["state"] != "completed" and evaluated(served, row["id"])] == []
    await require_served(served, truth, evaluation_keys=good)
    await require_true_books(served, answered=1)


def point_at(conn: Connection, keys_id: str, model: str) -> None:
    """Make a registered set look as if it were for the program that runs."""
    from lattice.gateway.store.encrypted_schema import evaluation_keys, model_versions

    wanted_hash = conn.execute(select(model_versions.c.keys_hash).where(model_versions.c.model_id == model)).scalar()
    conn.execute(evaluation_keys.update().where(evaluation_keys.c.id == keys_id).values(keys_hash=wanted_hash))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_bytes_that_rot_on_the_gateway_s_disk_fail_cleanly(served: Served) -> None:
    """Two attempts, then a code; the worker never evaluates bytes that are not those of the hash."""
    truth, live = wanted(), served.owner.live
    await require_served(served, truth)
    other = client_keys(MODEL)
    _, bob = await served.owner.token(served.model, user="bob")
    with other.secret:
        bundle = write_bundle(objects_of(other))
        assert "id" in await register(bob, bundle)
        path = live.gateway.encrypted.blobs.path(hashlib.sha256(bundle).digest())
        rot(path)
        status, body = await ask(bob, write_bundle([question()]))
    assert (status, code(body)) == (502, "runtime_failed")
    (row,) = (await bob.ok("GET", QUERIES))["data"]
    assert (row["state"], row["attempt"]) == ("failed", 2)
    assert not evaluated(served, row["id"])
    await require_served(served, truth)
    await require_true_books(served, answered=2)


def rot(path: Path) -> None:
    """A bit is another one, under the same name."""
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(flipped(data))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_key_that_is_only_noise_harms_nobody_but_its_user(served: Served) -> None:
    """A residue in range cannot be told from a right one: the answer is noise, for whoever made the key alone."""
    truth = wanted()

    def nudge(inside: bytearray) -> None:
        inside[40:4_000:100] = bytes(each ^ 1 for each in inside[40:4_000:100])

    _, bob = await served.owner.token(served.model, user="bob")
    assert "id" in await register(bob, pair(keys=frame(objects_of(KEYS)[1], body=nudge)))
    status, body = await ask(bob, write_bundle([question()]))
    assert status == 200
    found = [decode_ciphertext(each, MODEL.params) for each in read_bundle(body)]
    assert not right(decrypt(MODEL.client, MODEL.params, KEYS.secret, found).values, truth)
    await require_served(served, truth)
