from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.gateway.runtimes.bootstrap import LIFE_MS, find_bootstrap, mint_bootstrap, redeem_bootstrap, void_bootstrap
from lattice.gateway.runtimes.rows import (
    RuntimeRow,
    create_runtime,
    find_runtime,
    get_runtime,
    list_runtimes,
    pack_key_configs,
    revoke_runtime,
    runtime_by_credential,
    save_announcement,
    set_verified,
    touch_seen,
)
from tests.support.ledger import NOW, account, refusal

TOKEN, IDENTITY, CREDENTIAL = b"t" * 32, b"i" * 32, b"c" * 32


@pytest.fixture
def runtime(conn: Connection) -> RuntimeRow:
    return create_runtime(conn, account(conn).id, "personal", "laptop", NOW)


def redemption(**changes: Any) -> dict[str, Any]:
    members = {
        "token_hash": TOKEN,
        "identity_key": IDENTITY,
        "credential_hash": CREDENTIAL,
        "key_config": b"config",
        "pairing": b"pairing",
        "now_ms": NOW + 1,
    }
    return members | changes


def test_a_runtime_starts_unpaired_and_is_seen_by_its_account_alone(conn: Connection, runtime: RuntimeRow) -> None:
    other = account(conn)
    assert get_runtime(conn, runtime.id, account_id=runtime.account_id, kind="personal") == runtime
    assert (runtime.identity_key, runtime.signed_key_configs, runtime.verified) == (None, (), False)
    for asked in ({"account_id": other.id}, {"kind": "hosted"}):
        assert refusal(conn, get_runtime, runtime.id, **asked) == "personal_lattice_not_found"
    assert refusal(conn, revoke_runtime, other.id, runtime.id, NOW) == "personal_lattice_not_found"
    assert refusal(conn, set_verified, other.id, runtime.id) == "personal_lattice_not_found"
    assert list_runtimes(conn, account_id=other.id) == []
    assert find_runtime(conn, "lat_none") is None


def test_runtimes_are_listed_in_pages_without_the_revoked(conn: Connection, runtime: RuntimeRow) -> None:
    made = [create_runtime(conn, runtime.account_id, "personal", f"n{i}", NOW + 1 + i) for i in range(3)]
    hosted = create_runtime(conn, runtime.account_id, "hosted", "rack", NOW + 9)
    gone = revoke_runtime(conn, runtime.account_id, made[1].id, NOW + 10)
    assert (
        revoke_runtime(conn, runtime.account_id, made[1].id, NOW + 11).revoked_at_ms == gone.revoked_at_ms == NOW + 10
    )
    mine = list_runtimes(conn, account_id=runtime.account_id, kind="personal")
    assert [row.id for row in mine] == [made[2].id, made[0].id, runtime.id]
    assert list_runtimes(conn, account_id=runtime.account_id, kind="personal", cursor=made[0].id) == [runtime]
    assert gone in list_runtimes(conn, account_id=runtime.account_id, revoked=True)
    assert list_runtimes(conn, kind="hosted", limit=1) == [hosted]


def test_redeeming_pairs_the_machine(conn: Connection, runtime: RuntimeRow) -> None:
    token = mint_bootstrap(conn, runtime, TOKEN, b"app", b"mac", NOW)
    assert token.expires_at_ms == NOW + LIFE_MS == NOW + 600_000
    found = find_bootstrap(conn, TOKEN, IDENTITY, NOW)
    assert (found.app_key, found.app_key_mac, found.redeemed_by) == (b"app", b"mac", None)
    paired = redeem_bootstrap(conn, **redemption(name="study"))
    assert (paired.identity_key, paired.signed_key_configs, paired.pairing) == (IDENTITY, (b"config",), b"pairing")
    assert (paired.name, paired.verified) == ("study", False)
    assert runtime_by_credential(conn, CREDENTIAL) == paired


def test_the_same_machine_may_redeem_again_and_its_older_credential_ends(conn: Connection, runtime: RuntimeRow) -> None:
    mint_bootstrap(conn, runtime, TOKEN, None, None, NOW)
    redeem_bootstrap(conn, **redemption())
    redeem_bootstrap(conn, **redemption(credential_hash=b"d" * 32))
    assert runtime_by_credential(conn, b"d" * 32).id == runtime.id
    assert refusal(conn, runtime_by_credential, CREDENTIAL) == "invalid_credential"
    late = redemption(now_ms=NOW + LIFE_MS)
    assert refusal(conn, redeem_bootstrap, **late) == "bootstrap_token_expired"


def test_a_token_is_for_one_machine(conn: Connection, runtime: RuntimeRow) -> None:
    mint_bootstrap(conn, runtime, TOKEN, None, None, NOW)
    redeem_bootstrap(conn, **redemption())
    thief = redemption(identity_key=b"x" * 32, credential_hash=b"x" * 32)
    assert refusal(conn, redeem_bootstrap, **thief) == "bootstrap_token_used"
    late = thief | {"now_ms": NOW + LIFE_MS}
    assert refusal(conn, redeem_bootstrap, **late) == "bootstrap_token_used"
    assert get_runtime(conn, runtime.id).identity_key == IDENTITY


def test_unknown_void_and_expired_tokens(conn: Connection, runtime: RuntimeRow) -> None:
    assert refusal(conn, redeem_bootstrap, **redemption()) == "bootstrap_token_invalid"
    mint_bootstrap(conn, runtime, TOKEN, None, None, NOW)
    assert refusal(conn, redeem_bootstrap, **redemption(now_ms=NOW + LIFE_MS)) == "bootstrap_token_expired"
    void_bootstrap(conn, TOKEN)
    assert refusal(conn, redeem_bootstrap, **redemption()) == "bootstrap_token_invalid"


def test_revoking_ends_the_credential_and_the_tokens(conn: Connection, runtime: RuntimeRow) -> None:
    mint_bootstrap(conn, runtime, TOKEN, None, None, NOW)
    redeem_bootstrap(conn, **redemption())
    revoked = revoke_runtime(conn, runtime.account_id, runtime.id, NOW + 5)
    assert refusal(conn, runtime_by_credential, CREDENTIAL) == "revoked_grant"
    assert refusal(conn, redeem_bootstrap, **redemption()) == "bootstrap_token_invalid"
    with pytest.raises(LatticeError, match="personal_lattice_not_found"):
        mint_bootstrap(conn, revoked, b"u" * 32, None, None, NOW)


def test_a_new_identity_must_be_verified_anew(conn: Connection, runtime: RuntimeRow) -> None:
    for number, identity in enumerate((IDENTITY, IDENTITY, b"x" * 32)):
        token = bytes([number]) * 32
        mint_bootstrap(conn, runtime, token, None, None, NOW)
        row = redeem_bootstrap(conn, **redemption(token_hash=token, identity_key=identity, credential_hash=token))
        assert row.verified is (number == 1)
        set_verified(conn, runtime.account_id, runtime.id)
    assert get_runtime(conn, runtime.id).verified is True
    assert set_verified(conn, runtime.account_id, runtime.id, False).verified is False


def test_announcements_and_sightings(conn: Connection, runtime: RuntimeRow) -> None:
    save_announcement(conn, runtime.id, b"said", pack_key_configs([b"one", b"two"]), NOW + 5)
    for seen in (NOW + 9, NOW + 7):
        touch_seen(conn, [(runtime.id, seen)])
    touch_seen(conn, [])
    row = get_runtime(conn, runtime.id)
    assert (row.announcement, row.signed_key_configs, row.last_seen_ms) == (b"said", (b"one", b"two"), NOW + 9)
