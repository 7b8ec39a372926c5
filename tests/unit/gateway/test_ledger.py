from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from sqlalchemy import Connection, event, text, update

from lattice.core.errors import LatticeError
from lattice.gateway import ledger
from lattice.gateway.ledger import Credits, Grant, Price
from lattice.gateway.store.schema import entries, holds, wallets
from lattice.gateway.works import get_work, renew
from tests.support.ledger import NOW, account, admission, ending, refusal, savepoint, settlement

PRICE = Price("lattice:tiny", 500_000, 1_500_000, 256)


def statements(conn: Connection) -> list[str]:
    seen: list[str] = []
    conn.connection.dbapi_connection.set_trace_callback(seen.append)  # type: ignore[union-attr]
    return seen


def test_a_hold_covers_the_most_that_a_request_may_cost() -> None:
    assert ledger.padded_bytes(0) == 512
    assert ledger.padded_bytes(256) == 768
    assert ledger.hold_amount(PRICE, 100, 256) == 256 + 384
    assert ledger.hold_amount(PRICE, 100, 256, choices=3) == 256 + 3 * 384
    assert ledger.cost(PRICE, 1, 1) == 1 + 2  # rounded up, each


@given(body=st.integers(0, 10**7), limit=st.integers(1, 10**6), n=st.integers(1, 8), data=st.data())
def test_no_answer_within_its_limits_costs_more_than_its_hold(
    body: int, limit: int, n: int, data: st.DataObject
) -> None:
    prompt = data.draw(st.integers(0, body))
    completion = data.draw(st.integers(0, n * limit))
    assert ledger.cost(PRICE, prompt, completion) <= ledger.hold_amount(PRICE, body, limit, n)


def test_prices_are_set_and_read(conn: Connection) -> None:
    other = Price("lattice:large", 1, 2, 3, 4096)
    for price in (PRICE, PRICE, other):
        ledger.put_price(conn, price)
    assert ledger.get_price(conn, "lattice:tiny") == PRICE
    assert ledger.get_price(conn, "none") is None
    assert ledger.list_prices(conn) == [other, PRICE]


def test_work_on_ones_own_machine_is_metered_and_touches_no_money(conn: Connection) -> None:
    owner = account(conn)
    request = admission(owner.id, 0, runtime_id="lat_own", spend_cap_micro=0)
    seen = statements(conn)
    ledger.admit(conn, request)
    ledger.settle(conn, settlement(request.work_id, 900))
    assert len(seen) == 3  # works, works, usage
    (row,) = ledger.list_usage(conn, owner.id)
    assert (row.charged_micro, row.prompt_tokens, row.completion_tokens, row.runtime_id) == (0, 20, 10, "lat_own")
    assert ledger.list_entries(conn, owner.id) == []


def test_paid_work_takes_nine_statements(conn: Connection) -> None:
    owner = account(conn, 1_000)
    request = admission(owner.id, 100)
    seen = statements(conn)
    ledger.admit(conn, request)
    ledger.settle(conn, settlement(request.work_id, 60))
    assert len(seen) == 9


def test_entries_of_a_work_tell_its_whole_story(conn: Connection) -> None:
    owner = account(conn, 1_000)
    request, other = admission(owner.id, 100), admission(owner.id, 100)
    for each in (request, other):
        ledger.admit(conn, each)
        ledger.settle(conn, settlement(each.work_id, 60, now_ms=NOW + 50))
    rows = list(reversed(ledger.list_entries(conn, owner.id, work_id=request.work_id)))
    assert [(row.kind, row.ledger_account.removeprefix(owner.id), row.amount_micro) for row in rows] == [
        ("hold", ":available", -100),
        ("hold", ":held", 100),
        ("settle", ":held", -100),
        ("settle", "lattice:revenue", 60),
        ("settle", ":available", 40),
    ]
    assert len({row.transaction_id for row in rows}) == 2
    assert all(row.transaction_id in {row.id for row in rows} for row in rows)
    assert ledger.list_entries(conn, "acc_other", work_id=request.work_id) == []
    assert ledger.list_entries(conn, owner.id, work_id="work_none") == []
    first = ledger.list_entries(conn, owner.id, limit=4)
    rest = ledger.list_entries(conn, owner.id, first[-1].id, 50)
    assert [row.id for row in first + rest] == sorted((row.id for row in first + rest), reverse=True)
    assert len(first + rest) == 12


@pytest.mark.parametrize(("cost", "charged"), [(0, 0), (60, 60), (100, 100), (101, 100)])
def test_the_charge_is_the_cost_but_never_more_than_the_hold(conn: Connection, cost: int, charged: int) -> None:
    owner = account(conn, 150)
    request = admission(owner.id, 100)
    ledger.admit(conn, request)
    assert ledger.settle(conn, settlement(request.work_id, cost)).charged_micro == charged
    assert ledger.credits(conn, owner.id) == Credits(150 - charged, 0)
    assert ledger.check(conn) == ledger.Audit(0, 0, ())


@pytest.mark.parametrize(
    "changes", [{"cost": -1}, {"cost": 1, "prompt_tokens": -1}, {"cost": 1, "completion_tokens": 2**31}]
)
def test_a_runtime_cannot_invent_impossible_counts(conn: Connection, changes: dict[str, int]) -> None:
    owner = account(conn, 100)
    request = admission(owner.id, 100)
    ledger.admit(conn, request)
    given = settlement(request.work_id, **changes)
    assert refusal(conn, ledger.settle, given) == "receipt_invalid"
    assert ledger.void(conn, ending(request.work_id))
    assert ledger.check(conn) == ledger.Audit(0, 0, ())


@pytest.mark.parametrize("amount", [-1, 10**15 + 1, 2**70])
def test_an_absurd_hold_is_refused_before_it_reaches_the_database(conn: Connection, amount: int) -> None:
    owner = account(conn, 100)
    assert refusal(conn, ledger.admit, admission(owner.id, amount)) == "credits_exhausted"


def test_a_stream_that_broke_off_before_its_first_token_costs_nothing(conn: Connection) -> None:
    owner = account(conn, 100)
    request = admission(owner.id, 100)
    ledger.admit(conn, request)
    given = settlement(request.work_id, 90, completion_tokens=0)
    assert ledger.settle_partial(conn, given, "cancelled", "disconnected").charged_micro == 0
    assert ledger.credits(conn, owner.id) == Credits(100, 0)
    assert ledger.list_usage(conn, owner.id) == []
    assert refusal(conn, ledger.settle_partial, given, "cancelled", "disconnected") == "lease_lost"
    work = get_work(conn, request.work_id)
    assert work is not None
    assert (work.state, work.reason, work.delivered_tokens) == ("cancelled", "disconnected", 0)


def test_a_refused_admission_leaves_no_trace(conn: Connection) -> None:
    owner = account(conn, 99)
    request = admission(owner.id, 100)
    assert refusal(conn, ledger.admit, request) == "credits_exhausted"
    assert get_work(conn, request.work_id) is None
    assert refusal(conn, ledger.admit, admission("acc_without_wallet", 1)) == "credits_exhausted"
    assert ledger.check(conn) == ledger.Audit(0, 0, ())


def test_a_spend_cap_counts_running_and_settled_work_of_its_key_alone(conn: Connection) -> None:
    owner = account(conn, 10_000)

    def attempt(amount: int, key: str = "key_one") -> str | None:
        request = admission(owner.id, amount, key_id=key, spend_cap_micro=100)
        return refusal(conn, ledger.admit, request) or request.work_id

    running = attempt(60)
    assert attempt(41) == "spend_cap_reached"
    assert attempt(41, "key_two") != "spend_cap_reached"
    assert ledger.key_spend(conn, "key_one") == 60
    ledger.settle(conn, settlement(str(running), 10))
    assert ledger.key_spend(conn, "key_one") == 10
    voided = attempt(90)
    assert attempt(1) == "spend_cap_reached"
    ledger.void(conn, ending(str(voided)))
    assert attempt(90) != "spend_cap_reached"
    assert ledger.key_spend(conn, "key_none") == 0


def test_the_cap_is_summed_over_its_index_alone(conn: Connection) -> None:
    plan = conn.execute(
        text(
            "EXPLAIN QUERY PLAN SELECT sum(CASE WHEN state = 'held' THEN amount_micro ELSE charged_micro END) "
            "FROM holds WHERE key_id = 'k' AND state <> 'voided'"
        )
    ).all()
    assert "COVERING INDEX ix_holds_spend" in plan[0].detail


def test_the_reaper_reads_open_work_only(conn: Connection) -> None:
    plan = conn.execute(
        text("EXPLAIN QUERY PLAN SELECT id FROM works WHERE ended_at_ms IS NULL AND (lease_expires_ms <= 1)")
    ).all()
    assert "ix_works_open" in plan[0].detail


def test_a_work_id_belongs_to_its_first_account_key_runtime_and_bytes(conn: Connection) -> None:
    owner, other = account(conn), account(conn)
    request = admission(owner.id)
    ledger.admit(conn, request)
    for changes in ({"account_id": other.id}, {"key_id": "key_x"}, {"runtime_id": "lat_x"}, {"envelope_hash": b"x"}):
        again = admission(**{"account_id": owner.id, "work_id": request.work_id} | changes)
        assert refusal(conn, ledger.admit, again) == "idempotency_conflict"
    assert refusal(conn, ledger.admit, request) == "idempotency_in_flight"


def test_work_that_failed_may_be_repeated_under_a_new_attempt_and_a_new_hold(conn: Connection) -> None:
    owner = account(conn, 1_000)
    request = admission(owner.id, 100)
    ledger.admit(conn, request)
    ledger.void(conn, ending(request.work_id))
    dearer = admission(owner.id, 150, work_id=request.work_id, now_ms=NOW + 5)
    assert ledger.admit(conn, dearer).attempt == 2
    assert ledger.credits(conn, owner.id) == Credits(850, 150)
    assert ledger.settle(conn, settlement(request.work_id, 140, attempt=2)).charged_micro == 140
    assert refusal(conn, ledger.admit, dearer) == "idempotency_result_unavailable"
    assert ledger.check(conn) == ledger.Audit(0, 0, ())
    assert conn.execute(text("SELECT count(*) FROM holds")).scalar() == 1


def test_a_void_of_the_wrong_attempt_or_twice_changes_nothing(conn: Connection) -> None:
    owner = account(conn, 100)
    request = admission(owner.id, 100)
    ledger.admit(conn, request)
    assert not ledger.void(conn, ending(request.work_id, attempt=2))
    assert ledger.void(conn, ending(request.work_id))
    assert not ledger.void(conn, ending(request.work_id))
    assert ledger.credits(conn, owner.id) == Credits(100, 0)


def test_a_grant_happens_once_for_ever(conn: Connection) -> None:
    owner, other = account(conn), account(conn)
    gift = Grant(account_id=owner.id, amount_micro=5, reference="r", now_ms=NOW, reason="welcome")
    assert ledger.grant(conn, gift)
    assert not ledger.grant(conn, gift)
    changed = Grant(account_id=other.id, amount_micro=5, reference="r", now_ms=NOW)
    assert refusal(conn, ledger.grant, changed) == "idempotency_conflict"
    assert ledger.credits(conn, owner.id) == Credits(5, 0)
    assert [row.reason for row in ledger.list_entries(conn, owner.id)] == ["welcome", "welcome"]
    for account_id, amount, code in [("acc_none", 5, "not_found"), (owner.id, 0, "invalid_request")]:
        bad = Grant(account_id=account_id, amount_micro=amount, reference="q", now_ms=NOW)
        assert refusal(conn, ledger.grant, bad) == code


def test_the_database_itself_refuses_a_negative_balance(conn: Connection) -> None:
    owner = account(conn, 5)
    for column in ("available_micro", "held_micro"):
        with pytest.raises(Exception, match="CHECK"):
            savepoint(conn, lambda conn, column=column: conn.execute(update(wallets).values({column: -1})))
    assert ledger.credits(conn, owner.id) == Credits(5, 0)


def test_reaping_and_recovery_leave_durable_work_queued(conn: Connection) -> None:
    owner = account(conn, 100)
    request = admission(owner.id, 100, leased=False)
    ledger.admit(conn, request)
    conn.execute(text("UPDATE works SET state = 'offline_queued'"))
    assert ledger.recover(conn, "gw_one", NOW) == []
    assert ledger.reap(conn, NOW + 599_999) == []
    (gone,) = ledger.reap(conn, NOW + 600_000)
    assert (gone.work_id, gone.reason, gone.gateway_id) == (request.work_id, "deadline", "gw_one")


def test_a_renewed_lease_does_not_outlive_its_works_deadline(conn: Connection) -> None:
    owner = account(conn, 100)
    request = admission(owner.id, 100, lease_expires_ms=NOW + 10)
    ledger.admit(conn, request)
    assert renew(conn, [(request.work_id, 1), (request.work_id, 2)], NOW + 900_000) == [(request.work_id, 2)]
    assert ledger.reap(conn, NOW + 599_999) == []
    assert [gone.reason for gone in ledger.reap(conn, NOW + 600_000)] == ["deadline"]
    assert ledger.credits(conn, owner.id) == Credits(100, 0)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (update(wallets).values(available_micro=wallets.c.available_micro + 1), "available is"),
        (update(wallets).values(held_micro=wallets.c.held_micro + 1), "held is"),
        (update(entries).where(entries.c.kind == "hold").values(amount_micro=7), "does not balance"),
        (update(holds).values(state="voided"), "which is not the sum of its holds"),
        (text("UPDATE works SET ended_at_ms = 1"), "ended and is still held"),
        (text("DELETE FROM works"), "ended and is still held"),
        (text("DELETE FROM wallets"), "has holds and no wallet"),
    ],
)
def test_the_audit_finds_damage(conn: Connection, damage: object, fault: str) -> None:
    owner = account(conn, 100)
    ledger.admit(conn, admission(owner.id, 40))
    assert ledger.check(conn) == ledger.Audit(0, 40, ())
    conn.execute(damage)  # type: ignore[call-overload]
    assert any(fault in found for found in ledger.check(conn).faults)


def test_a_hold_that_is_not_held_while_its_work_is_open_is_a_mistake_of_ours(conn: Connection) -> None:
    owner = account(conn, 100)
    request = admission(owner.id, 40)
    ledger.admit(conn, request)
    conn.execute(update(holds).values(state="voided"))
    with pytest.raises(LatticeError, match="internal"):
        ledger.settle(conn, settlement(request.work_id, 10))


def test_admission_begins_its_own_transaction(conn: Connection) -> None:
    begun = []
    event.listen(conn.engine, "begin", lambda _: begun.append(1))
    owner = account(conn)
    conn.commit()
    ledger.admit(conn, admission(owner.id))
    assert begun
