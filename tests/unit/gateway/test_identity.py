from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.gateway.identity import (
    ALL_SCOPES,
    DEFAULT_SCOPES,
    KeyRecord,
    NewKey,
    Pepper,
    RequestRates,
    Scope,
    authenticate,
    bootstrap_owner,
    create_account,
    create_key,
    get_account,
    get_key,
    list_accounts,
    list_keys,
    load_pepper,
    revoke_key,
    touch_keys,
)
from tests.support.ledger import NOW


def make(conn: Connection, pepper: Pepper, **changes: object) -> tuple[KeyRecord, str]:
    owner = create_account(conn, "someone", NOW)
    members = {"account_id": owner.id, "name": "app", "scopes": frozenset({"lattice:compute:inference"})}
    return create_key(conn, pepper, NewKey(**members | changes), NOW)


def test_a_key_authenticates_by_its_hash_and_shows_no_secret(conn: Connection, pepper: Pepper) -> None:
    record, secret = make(conn, pepper, allowed_models=frozenset({"m"}), spend_cap_micro=5, requests_per_minute=7)
    assert secret.startswith("sk_lat_")
    assert secret.startswith(record.prefix)
    assert secret not in repr(record)
    assert authenticate(conn, pepper.hash(secret), NOW) == record
    with pytest.raises(LatticeError, match="invalid_credential"):
        authenticate(conn, pepper.hash(secret + "x"), NOW)
    with pytest.raises(LatticeError, match="invalid_credential"):
        authenticate(conn, Pepper(bytes(32)).hash(secret), NOW)


def test_a_revoked_key_is_a_revoked_grant_for_good(conn: Connection, pepper: Pepper) -> None:
    record, secret = make(conn, pepper)
    assert revoke_key(conn, record.account_id, record.id, NOW + 1).revoked_at_ms == NOW + 1
    assert revoke_key(conn, record.account_id, record.id, NOW + 2).revoked_at_ms == NOW + 1
    with pytest.raises(LatticeError, match="revoked_grant"):
        authenticate(conn, pepper.hash(secret), NOW)


def test_an_expired_key_is_an_invalid_credential(conn: Connection, pepper: Pepper) -> None:
    _, secret = make(conn, pepper, expires_at_ms=NOW + 10)
    authenticate(conn, pepper.hash(secret), NOW + 9)
    with pytest.raises(LatticeError, match="invalid_credential"):
        authenticate(conn, pepper.hash(secret), NOW + 10)


def test_another_accounts_key_is_not_found(conn: Connection, pepper: Pepper) -> None:
    record, _ = make(conn, pepper)
    other = create_account(conn, "other", NOW)
    for act in (get_key, lambda *args: revoke_key(*args, NOW)):
        with pytest.raises(LatticeError, match="not_found"):
            act(conn, other.id, record.id)
    assert list_keys(conn, other.id) == []
    assert get_key(conn, record.account_id, record.id).revoked_at_ms is None


def test_scopes_and_models_are_required_by_name(conn: Connection, pepper: Pepper) -> None:
    record, _ = make(conn, pepper, allowed_models=frozenset({"lattice:tiny"}))
    record.require_scope(Scope.INFERENCE)
    record.require_model("lattice:tiny")
    with pytest.raises(LatticeError) as caught:
        record.require_scope(Scope.ADMIN)
    assert (caught.value.code, caught.value.details) == ("insufficient_scopes", {"needs": "lattice:admin"})
    with pytest.raises(LatticeError, match="model_not_allowed"):
        record.require_model("lattice:large")


@pytest.mark.parametrize(
    "changes",
    [
        {"scopes": frozenset()},
        {"scopes": frozenset({"lattice:everything"})},
        {"scopes": frozenset({"openid"})},
        {"expires_at_ms": NOW},
        {"scopes": frozenset({"lattice:keys:manage"}), "spend_cap_micro": 5},
        {"scopes": frozenset({"lattice:admin"}), "allowed_models": frozenset({"m"})},
    ],
)
def test_keys_that_make_no_sense_are_refused(conn: Connection, pepper: Pepper, changes: dict[str, object]) -> None:
    with pytest.raises(LatticeError, match="invalid_request"):
        make(conn, pepper, **changes)


def test_a_last_used_time_never_moves_back(conn: Connection, pepper: Pepper) -> None:
    record, _ = make(conn, pepper)
    for used in (NOW + 5, NOW + 3):
        touch_keys(conn, [(record.id, used)])
    touch_keys(conn, [])
    assert get_key(conn, record.account_id, record.id).last_used_at_ms == NOW + 5


def test_lists_page_by_their_last_id(conn: Connection, pepper: Pepper) -> None:
    owner = create_account(conn, "someone", NOW)
    new = NewKey(account_id=owner.id, name="app", scopes=frozenset(DEFAULT_SCOPES))
    made = [create_key(conn, pepper, new, NOW + number)[0] for number in range(5)]
    first = list_keys(conn, owner.id, limit=2)
    assert [key.id for key in first] == [made[4].id, made[3].id]
    assert [key.id for key in list_keys(conn, owner.id, first[-1].id, 9)] == [key.id for key in made[2::-1]]
    others = [create_account(conn, "other", NOW + number + 1) for number in range(3)]
    assert list_accounts(conn, others[1].id, 1) == [others[0]]
    assert get_account(conn, others[0].id) == others[0]
    with pytest.raises(LatticeError, match="not_found"):
        get_account(conn, "acc_none")


def test_the_owner_is_made_once_and_may_do_everything(conn: Connection, pepper: Pepper) -> None:
    owner = bootstrap_owner(conn, pepper, NOW)
    assert owner is not None
    assert owner.secret not in repr(owner)
    assert bootstrap_owner(conn, pepper, NOW) is None
    record = authenticate(conn, pepper.hash(owner.secret), NOW)
    assert record.scopes == ALL_SCOPES
    assert (record.id, record.account_id) == (owner.key_id, owner.account_id)


def test_the_pepper_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "pepper"
    first = load_pepper(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 32
    assert load_pepper(path).hash("s") == first.hash("s") != Pepper(bytes(32)).hash("s")
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o644)
    with pytest.raises(LatticeError, match="config_invalid"):
        load_pepper(path)
    path.unlink()
    with pytest.raises(LatticeError, match="config_invalid"):
        load_pepper(path, create=False)


def test_a_pepper_that_another_process_made_first_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pepper"
    link = os.link

    def lose_the_race(source: str, target: Path) -> None:
        target.write_bytes(b"o" * 32)
        target.chmod(0o600)
        link(source, target)

    monkeypatch.setattr(os, "link", lose_the_race)
    assert load_pepper(path).hash("s") == Pepper(b"o" * 32).hash("s")
    assert list(tmp_path.iterdir()) == [path]


def test_a_pepper_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(LatticeError, match="config_invalid"):
        load_pepper(path)


def test_requests_per_minute(conn: Connection, pepper: Pepper) -> None:
    rates = RequestRates()
    limited, _ = make(conn, pepper, requests_per_minute=3)
    free, _ = make(conn, pepper)
    for _ in range(3):
        rates.require(limited)
    with pytest.raises(LatticeError) as caught:
        rates.require(limited)
    assert caught.value.code == "rate_limited"
    assert caught.value.retry_after_ms is not None
    assert 50_000 < caught.value.retry_after_ms <= 60_000
    for _ in range(10):
        rates.require(free)
