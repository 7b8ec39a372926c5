"""A work's money, from admission to its end. These run on every request, so they use as few statements as they can."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, insert, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway import idempotency
from lattice.gateway.ledger.postings import post_hold, post_release
from lattice.gateway.ledger.queries import key_spend
from lattice.gateway.store.prepared import Prepared
from lattice.gateway.store.schema import holds, usage
from lattice.gateway.works import rows as work_rows
from lattice.gateway.works.records import Admission, Admitted, Ending, EndState, Settled, Settlement

_HOLD_COLUMNS = tuple(column.name for column in holds.columns if column.name != "ended_at_ms")
_INSERT_HOLD = Prepared(insert(holds), _HOLD_COLUMNS)
_INSERT_USAGE = Prepared(insert(usage), tuple(column.name for column in usage.columns))
_REOPEN_HOLD = (
    update(holds)
    .where(holds.c.work_id == bindparam("work"), holds.c.state == "voided")
    .values(
        state="held",
        amount_micro=bindparam("amount"),
        created_at_ms=bindparam("now"),
        expires_at_ms=bindparam("expires"),
        ended_at_ms=None,
    )
)
_END_HOLD = Prepared(
    update(holds)
    .where(holds.c.work_id == bindparam("work"), holds.c.state == "held")
    .values(state=bindparam("end_state"), charged_micro=bindparam("charge"), ended_at_ms=bindparam("now"))
)


MAX_HOLD_MICRO = 10**15
MAX_TOKENS = 2**31 - 1


def admit(conn: Connection, admission: Admission) -> Admitted:
    """Let a work in: claim its idempotency key, record it, and set its money aside.

    Raises `credits_exhausted`, `spend_cap_reached`, `idempotency_conflict`, `idempotency_in_flight` or
    `idempotency_result_unavailable`; the caller's savepoint then undoes all of it.
    """
    if not 0 <= admission.amount_micro <= MAX_HOLD_MICRO:  # an absurd `max_tokens`: nobody's balance covers it
        raise LatticeError("credits_exhausted")
    if admission.claim is not None:
        replay = idempotency.take(conn, admission.claim, admission.work_id, admission.now_ms)
        if replay is not None:
            return Admitted(attempt=0, replay=replay)
    attempt, repeated = work_rows.open_work(conn, admission)
    if admission.amount_micro:
        _hold(conn, admission, repeated)
    return Admitted(attempt)


def _hold(conn: Connection, admission: Admission, repeated: bool) -> None:
    # The wallet comes first: its row lock makes the account's admissions take turns, so the cap's sum is current.
    post_hold(conn, admission.account_id, admission.amount_micro, admission.work_id, admission.now_ms)
    cap = admission.spend_cap_micro
    if cap is not None and key_spend(conn, admission.key_id) + admission.amount_micro > cap:
        raise LatticeError("spend_cap_reached")
    params = {
        "id": Prefix.HOLD + admission.work_id.removeprefix(Prefix.WORK),
        "work_id": admission.work_id,
        "account_id": admission.account_id,
        "key_id": admission.key_id,
        "amount_micro": admission.amount_micro,
        "state": "held",
        "charged_micro": 0,
        "created_at_ms": admission.now_ms,
        "expires_at_ms": admission.deadline_ms,
    }
    if repeated and _reopen(conn, admission):
        return
    _INSERT_HOLD.change(conn, params)


def _reopen(conn: Connection, admission: Admission) -> bool:
    params = {
        "work": admission.work_id,
        "amount": admission.amount_micro,
        "now": admission.now_ms,
        "expires": admission.deadline_ms,
    }
    return bool(conn.execute(_REOPEN_HOLD, params).rowcount)


def settle(conn: Connection, settlement: Settlement) -> Settled:
    """Charge an answered work: min(hold, cost). Raises `lease_lost` for a late or a repeated result."""
    return _close(conn, settlement, "completed", None)


def settle_partial(conn: Connection, settlement: Settlement, state: EndState, reason: str) -> Settled:
    """Charge what was delivered of a stream that broke off; where nothing was delivered, nothing is charged.

    `completion_tokens` is the count last delivered. The idempotency key stays used: part of an answer went out.
    """
    if settlement.completion_tokens == 0:
        ending = Ending(
            work_id=settlement.work_id,
            attempt=settlement.attempt,
            state=state,
            reason=reason,
            now_ms=settlement.now_ms,
        )
        if not void(conn, ending):
            raise LatticeError("lease_lost")
        return Settled(charged_micro=0)
    return _close(conn, settlement, state, reason)


def _close(conn: Connection, settlement: Settlement, state: str, reason: str | None) -> Settled:
    work_id, now_ms = settlement.work_id, settlement.now_ms
    counts = (settlement.prompt_tokens, settlement.completion_tokens)
    if settlement.cost_micro < 0 or not all(0 <= count <= MAX_TOKENS for count in counts):
        raise LatticeError("receipt_invalid", "The runtime's token counts are out of range.")
    work = work_rows.end_work(
        conn, work_id, settlement.attempt, state, reason, settlement.completion_tokens, now_ms, answered=True
    )
    if work is None:
        raise LatticeError("lease_lost")
    account_id, key_id, runtime_id, model, task, sealing, amount = work
    charge = min(amount, settlement.cost_micro)
    if amount:
        _end_hold(conn, work_id, "settled", charge, now_ms)
        post_release(conn, "settle", account_id, amount, charge, work_id, now_ms)
    row = {
        "id": new_id(Prefix.USAGE, now_ms),
        "account_id": account_id,
        "key_id": key_id,
        "runtime_id": runtime_id,
        "work_id": work_id,
        "model": model,
        "task": task,
        "sealing": sealing,
        "prompt_tokens": settlement.prompt_tokens,
        "completion_tokens": settlement.completion_tokens,
        "charged_micro": charge,
        "created_at_ms": now_ms,
    }
    _INSERT_USAGE.change(conn, row)
    if settlement.claim is not None:
        idempotency.finish(conn, settlement.claim, settlement.status, settlement.result)
    return Settled(charge)


def void(conn: Connection, ending: Ending) -> bool:
    """End a work without charging; False where it had ended, or runs under another attempt, and nothing was changed."""
    work_id, now_ms = ending.work_id, ending.now_ms
    work = work_rows.end_work(conn, work_id, ending.attempt, ending.state, ending.reason, 0, now_ms, answered=False)
    if work is None:
        return False
    if work.hold_micro:
        _end_hold(conn, work_id, "voided", 0, now_ms)
        post_release(conn, "void", work.account_id, work.hold_micro, 0, work_id, now_ms)
    if ending.keep_claim:
        idempotency.lose_work(conn, work_id)
    else:
        idempotency.release_work(conn, work_id)
    return True


def _end_hold(conn: Connection, work_id: str, state: str, charge: int, now_ms: int) -> None:
    params = {"work": work_id, "end_state": state, "charge": charge, "now": now_ms}
    if _END_HOLD.change(conn, params) != 1:
        raise LatticeError("internal", f"The hold of {work_id} is not held while its work is open.")
