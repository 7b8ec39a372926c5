"""Whoever copies the database files finds no key, no token and no answer in them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, select

from lattice.core.ids import SecretPrefix, new_secret
from lattice.gateway import ledger
from lattice.gateway.api.credentials import request_guard
from lattice.gateway.identity import KeyCache, load_pepper
from lattice.gateway.runtimes.bootstrap import mint_bootstrap, redeem_bootstrap
from lattice.gateway.runtimes.rows import create_runtime
from lattice.gateway.store import Store
from lattice.gateway.store.schema import api_keys
from tests.support.control_plane import make_api
from tests.support.ledger import NOW, admission, settlement

ANSWER = b"canary answer, as the model gave it"
PROMPT = b'{"model":"m","messages":[{"content":"canary prompt, as the caller sent it"}]}'


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.name.startswith("lattice.db"))


def without_prefix(secret: str) -> str:
    """The random part, which may itself contain an underscore."""
    for prefix in SecretPrefix:
        secret = secret.removeprefix(f"{prefix.value}_")
    return secret


async def test_no_secret_is_in_the_database_files(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'lattice.db'}")
    pepper = load_pepper(tmp_path / "pepper")
    api = await make_api(store, pepper)
    made = await api.make_key(scopes=["lattice:compute:inference"])
    await api.call("POST", "/v1/api-keys", {"name": "x"}, idempotency_key="canary-idempotency-key")
    kept = await api.call("POST", "/v1/api-keys", {"name": "x"}, idempotency_key="canary-idempotency-key")
    record = await KeyCache(store, pepper).authenticate(made.secret)
    headers = {"authorization": f"Bearer {made.secret}", "idempotency-key": "canary-idempotency-key"}
    given = request_guard(pepper, record, "POST /v1/chat/completions", headers, PROMPT)
    assert given is not None
    request = admission(record.account_id, 0, key_id=record.id, claim=given.claim)
    await store.write(ledger.admit, request)
    result = given.box.seal(ANSWER)
    await store.write(ledger.settle, settlement(request.work_id, 0, claim=given.claim, result=result))

    token, credential = new_secret(SecretPrefix.BOOTSTRAP), new_secret(SecretPrefix.RUNTIME_CREDENTIAL)

    def pair(conn: Connection) -> None:
        runtime = create_runtime(conn, record.account_id, "personal", "laptop", NOW)
        mint_bootstrap(conn, runtime, pepper.hash(token), None, None, NOW)
        redeem_bootstrap(
            conn,
            pepper.hash(token),
            identity_key=b"i" * 32,
            credential_hash=pepper.hash(credential),
            key_config=b"config",
            pairing=None,
            now_ms=NOW,
        )

    await store.write(pair)
    secrets = [api.secret, made.secret, kept[1]["secret"], token, credential, "canary-idempotency-key"]
    canaries = [secret.encode() for secret in secrets] + [without_prefix(secret).encode() for secret in secrets]
    pepper_bytes = (tmp_path / "pepper").read_bytes()
    for moment in ("while open", "after closing"):
        found = everything(tmp_path)
        assert record.id.encode() in found, moment
        assert [text for text in [*canaries, b"canary", ANSWER, PROMPT, pepper_bytes] if text in found] == [], moment
        await store.close()


async def test_the_stored_prefix_of_a_key_is_too_short_to_help(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite:///{tmp_path / 'lattice.db'}")
    api = await make_api(store, load_pepper(tmp_path / "pepper"))
    prefix = await store.read(lambda conn: str(conn.execute(select(api_keys.c.prefix)).scalar()))
    assert api.secret.startswith(prefix)
    assert len(api.secret) - len(prefix) >= 38  # 228 of 256 bits remain
    await store.close()
