from __future__ import annotations

import pytest
from sqlalchemy import Connection

from lattice.core.clock import DAY_MS
from lattice.core.errors import LatticeError
from lattice.gateway import idempotency, ledger
from lattice.gateway.idempotency import Guard, StoredReply, guard, once, take
from tests.support.ledger import NOW, account, admission, ending, refusal, settlement

MAC_KEY = b"k" * 32


def make(**changes: object) -> Guard:
    members = {
        "key_id": "key_one",
        "route": "POST /v1/chat/completions",
        "idempotency_key": "idem-1",
        "secret": "sk_lat_secret",
        "body": b"{}",
    }
    return guard(MAC_KEY, **members | changes)  # type: ignore[arg-type]


def test_a_claim_stands_for_credential_route_key_and_body() -> None:
    base = make().claim
    assert make().claim == base
    for name, value in (("key_id", "key_two"), ("route", "POST /v1/embeddings"), ("idempotency_key", "idem-2")):
        assert make(**{name: value}).claim.scope_hash != base.scope_hash
    other = make(body=b"{ }").claim
    assert (other.scope_hash == base.scope_hash, other.body_mac == base.body_mac) == (True, False)
    # Fields are length-prefixed: moving a character across a boundary is another scope.
    assert make(key_id="key_oneP", route="OST /x").claim != make(key_id="key_one", route="POST /x").claim


@pytest.mark.parametrize("key", ["", "x" * 256, "line\nbreak"])
def test_a_key_must_be_printable_and_short(key: str) -> None:
    with pytest.raises(LatticeError, match="invalid_request"):
        make(idempotency_key=key)


def test_a_kept_reply_opens_only_for_the_secret_and_key_that_sealed_it() -> None:
    sealed = make().box.seal(b"the answer")
    assert b"answer" not in sealed
    assert make().box.open(sealed) == b"the answer"
    assert make().box.seal(b"the answer") != sealed
    for other in (make(secret="sk_lat_other"), make(idempotency_key="idem-2"), make(key_id="key_two")):
        with pytest.raises(LatticeError, match="idempotency_result_unavailable"):
            other.box.open(sealed)
    for broken in (b"", sealed[:5], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(LatticeError, match="idempotency_result_unavailable"):
            make().box.open(broken)


def test_a_request_is_in_flight_then_done_then_forgotten(conn: Connection) -> None:
    owner = account(conn, 1_000)
    mine = make()
    request = admission(owner.id, 10, claim=mine.claim)
    ledger.admit(conn, request)
    with pytest.raises(LatticeError) as caught:
        ledger.admit(conn, admission(owner.id, 10, claim=mine.claim))
    assert (caught.value.code, caught.value.retry_after_ms) == ("idempotency_in_flight", 1_000)
    other = admission(owner.id, 10, claim=make(body=b"other").claim)
    assert refusal(conn, ledger.admit, other) == "idempotency_conflict"
    sealed = mine.box.seal(b"the answer")
    ledger.settle(conn, settlement(request.work_id, 5, claim=mine.claim, result=sealed, status=201))
    again = ledger.admit(conn, admission(owner.id, 10, claim=mine.claim))
    assert again.replay == StoredReply(201, sealed)
    assert ledger.credits(conn, owner.id) == ledger.Credits(995, 0)
    assert refusal(conn, ledger.admit, other) == "idempotency_conflict"
    late = admission(owner.id, 10, claim=mine.claim, now_ms=NOW + DAY_MS)
    assert ledger.admit(conn, late).replay is None


def test_a_streamed_reply_is_gone(conn: Connection) -> None:
    owner = account(conn, 1_000)
    mine = make()
    request = admission(owner.id, 10, claim=mine.claim)
    ledger.admit(conn, request)
    ledger.settle(conn, settlement(request.work_id, 5, claim=mine.claim))
    again = admission(owner.id, 10, claim=mine.claim)
    assert refusal(conn, ledger.admit, again) == "idempotency_result_unavailable"


def test_a_failed_request_frees_its_key_and_a_lost_one_does_not(conn: Connection) -> None:
    owner = account(conn, 1_000)
    failed, lost = make(), make(idempotency_key="idem-2")
    first, second = admission(owner.id, 10, claim=failed.claim), admission(owner.id, 10, claim=lost.claim)
    ledger.admit(conn, first)
    ledger.admit(conn, second)
    ledger.void(conn, ending(first.work_id))
    ledger.recover(conn, "gw_one", NOW)
    assert refusal(conn, ledger.admit, admission(owner.id, 10, claim=failed.claim)) is None
    again = admission(owner.id, 10, claim=lost.claim)
    assert refusal(conn, ledger.admit, again) == "idempotency_result_unavailable"


def test_a_refused_admission_frees_its_key(conn: Connection) -> None:
    owner = account(conn, 5)
    mine = make()
    assert refusal(conn, ledger.admit, admission(owner.id, 10, claim=mine.claim)) == "credits_exhausted"
    assert refusal(conn, ledger.admit, admission(owner.id, 5, claim=mine.claim)) is None


def test_once_runs_once(conn: Connection) -> None:
    ran = []

    def act(conn: Connection) -> tuple[int, bytes]:
        ran.append(1)
        return 201, b"made %d" % len(ran)

    assert [once(conn, make(), NOW, act) for _ in range(3)] == [(201, b"made 1")] * 3
    assert once(conn, None, NOW, act) == (201, b"made 2")
    assert refusal(conn, once, make(body=b"x"), NOW, act) == "idempotency_conflict"


def test_purging_drops_what_is_a_day_old(conn: Connection) -> None:
    take(conn, make().claim, None, NOW)
    take(conn, make(idempotency_key="idem-2").claim, None, NOW + 1)
    assert idempotency.purge(conn, NOW + DAY_MS - 1) == 0
    assert idempotency.purge(conn, NOW + DAY_MS) == 1
    assert refusal(conn, take, make(idempotency_key="idem-2").claim, None, NOW) == "idempotency_in_flight"
