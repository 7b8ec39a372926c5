"""A state machine that does to the ledger what gateways, late daemons and impatient callers do, in any order.

A model in plain integers says what must have happened; the ledger's own audit says that its books agree.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, assume, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from lattice.core.ids import Prefix, new_id
from lattice.gateway import ledger, works
from lattice.gateway.idempotency import Claim
from lattice.gateway.ledger import Grant
from tests.support.ledger import NOW, account, admission, ending, memory, refusal, savepoint, settlement

LEASE_MS = 1_000
DEADLINE_MS = 1_500
CAP = 70

amounts = st.integers(0, 60)
costs = st.integers(0, 90)
stale = st.sampled_from([0, 0, 0, -1, 1])


class Work:
    """What the model knows of a work."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.reset(request)

    def reset(self, request: Any) -> None:
        self.held = request.amount_micro
        self.state = "in_flight" if request.leased else "queued"
        self.lease = request.lease_expires_ms if request.leased else request.deadline_ms
        self.deadline = request.deadline_ms
        self.attempt = int(request.leased)
        self.delivered = False
        self.gateway = request.gateway_id

    @property
    def open(self) -> bool:
        return self.state in ("queued", "in_flight")


class LedgerMachine(RuleBasedStateMachine):
    """Small balances, so that refusals happen; two accounts and two gateways, so that they can be mixed up."""

    work_ids = Bundle("work_ids")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.works: dict[str, Work] = {}
        self.available: dict[str, int] = {}
        self.charged: dict[str, int] = {}
        self.revenue = 0
        self.grants: dict[str, tuple[str, int]] = {}
        self.claims: dict[bytes, tuple[str, str]] = {}  # scope -> (state, work id)
        self._memory = memory()
        self.conn = self._memory.__enter__()

    def teardown(self) -> None:
        self.now += 10 * DEADLINE_MS
        savepoint(self.conn, ledger.reap, self.now)
        audit = ledger.check(self.conn)
        assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())
        self._memory.__exit__(None, None, None)

    @initialize()
    def accounts(self) -> None:
        for name in ("a", "b"):
            row = account(self.conn, 100, name)
            self.available[row.id] = 100
        self.ids = list(self.available)

    # --- what callers do

    @rule(which=st.integers(0, 1), amount=st.integers(1, 50), reference=st.sampled_from(["r1", "r2", "r3", "r4"]))
    def grant(self, which: int, amount: int, reference: str) -> None:
        account_id = self.ids[which]
        given = Grant(account_id=account_id, amount_micro=amount, reference=reference, now_ms=self.now)
        before = self.grants.get(reference)
        code = refusal(self.conn, ledger.grant, given)
        assert code == (None if before in (None, (account_id, amount)) else "idempotency_conflict")
        if before is None:
            self.grants[reference] = (account_id, amount)
            self.available[account_id] += amount

    @rule(
        target=work_ids,
        which=st.integers(0, 1),
        amount=amounts,
        leased=st.booleans(),
        capped=st.booleans(),
        gateway=st.sampled_from(["gw_one", "gw_two"]),
        scope=st.sampled_from([None, b"s1", b"s2"]),
    )
    def admit(self, which: int, amount: int, leased: bool, capped: bool, gateway: str, scope: bytes | None) -> str:
        account_id = self.ids[which]
        request = admission(
            account_id,
            amount,
            work_id=new_id(Prefix.WORK, self.now),
            key_id=f"key_{'capped' if capped else 'free'}_{which}",
            spend_cap_micro=CAP if capped else None,
            gateway_id=gateway,
            leased=leased,
            now_ms=self.now,
            lease_expires_ms=self.now + LEASE_MS,
            deadline_ms=self.now + DEADLINE_MS,
            claim=None if scope is None else Claim(scope * 16, b"m" * 32),
        )
        code = refusal(self.conn, ledger.admit, request)
        assert code == self._expected(request)
        if code is None:
            self._admitted(request, Work(request))
        return request.work_id

    def _expected(self, request: Any) -> str | None:
        if request.claim is not None and request.claim.scope_hash in self.claims:
            state = self.claims[request.claim.scope_hash][0]
            return "idempotency_in_flight" if state == "in_flight" else "idempotency_result_unavailable"
        if request.amount_micro > self.available[request.account_id]:
            return "credits_exhausted"
        if request.amount_micro and request.spend_cap_micro is not None:
            running = sum(
                work.held for work in self.works.values() if work.open and work.request.key_id == request.key_id
            )
            if running + self.charged.get(request.key_id, 0) + request.amount_micro > CAP:
                return "spend_cap_reached"
        return None

    def _admitted(self, request: Any, work: Work) -> None:
        self.works[request.work_id] = work
        self.available[request.account_id] -= request.amount_micro
        if request.claim is not None:
            self.claims[request.claim.scope_hash] = ("in_flight", request.work_id)

    @rule(work_id=work_ids, same=st.booleans())
    def admit_again(self, work_id: str, same: bool) -> None:
        """A caller repeats a work id, with the same sealed bytes or with others."""
        work = self.works.get(work_id)
        assume(work is not None)
        request = admission(
            work.request.account_id,
            work.request.amount_micro,
            work_id=work_id,
            key_id=work.request.key_id,
            spend_cap_micro=work.request.spend_cap_micro,
            envelope_hash=work.request.envelope_hash if same else b"x" * 32,
            now_ms=self.now,
            lease_expires_ms=self.now + LEASE_MS,
            deadline_ms=self.now + DEADLINE_MS,
        )
        code = refusal(self.conn, ledger.admit, request)
        if not same:
            assert code == "idempotency_conflict"
        elif work.open:
            assert code == "idempotency_in_flight"
        elif work.state == "completed" or work.delivered:
            assert code == "idempotency_result_unavailable"
        else:
            assert code == self._expected(request)
            if code is None:
                attempt = work.attempt
                work.reset(request)
                work.attempt = attempt + 1
                self._admitted(request, work)

    # --- what runtimes and gateways do, with the right attempt and with wrong ones

    @rule(work_id=work_ids)
    def lease(self, work_id: str) -> None:
        work = self.works.get(work_id)
        code = refusal(self.conn, works.lease, work_id, "gw_one", self.now + LEASE_MS)
        if work is not None and work.state == "queued":
            assert code is None
            work.state, work.attempt, work.gateway = "in_flight", work.attempt + 1, "gw_one"
            work.lease = self.now + LEASE_MS
        else:
            assert code == "lease_lost"

    @rule(work_id=work_ids, off=stale)
    def requeue(self, work_id: str, off: int) -> None:
        work = self.works.get(work_id)
        attempt = (work.attempt if work else 1) + off
        moved = savepoint(self.conn, works.requeue, work_id, attempt)
        assert moved == (work is not None and work.state == "in_flight" and off == 0)
        if moved:
            work.state, work.lease = "queued", work.deadline

    @rule(work_id=work_ids, off=stale)
    def renew(self, work_id: str, off: int) -> None:
        work = self.works.get(work_id)
        attempt = (work.attempt if work else 1) + off
        lost = savepoint(self.conn, works.renew, [(work_id, attempt)], self.now + LEASE_MS)
        live = work is not None and work.state == "in_flight" and off == 0
        assert lost == ([] if live else [(work_id, attempt)])
        if live:
            work.lease = self.now + LEASE_MS

    @rule(work_id=work_ids, off=stale, cost=costs)
    def settle(self, work_id: str, off: int, cost: int) -> None:
        work = self.works.get(work_id)
        claim = work.request.claim if work else None
        attempt = (work.attempt if work else 1) + off
        given = settlement(work_id, cost, attempt, now_ms=self.now, claim=claim)
        code = refusal(self.conn, ledger.settle, given)
        if self._may_answer(work, off):
            assert code is None
            self._close(work, "completed", cost)
        else:
            assert code == "lease_lost"

    @rule(work_id=work_ids, off=stale, cost=costs, delivered=st.integers(0, 3))
    def settle_partial(self, work_id: str, off: int, cost: int, delivered: int) -> None:
        work = self.works.get(work_id)
        claim = work.request.claim if work else None
        attempt = (work.attempt if work else 1) + off
        given = settlement(work_id, cost, attempt, now_ms=self.now, claim=claim, completion_tokens=delivered)
        code = refusal(self.conn, ledger.settle_partial, given, "cancelled", "disconnected")
        waiting = work is not None and work.open and off == 0 and not delivered
        if waiting or self._may_answer(work, off):
            assert code is None
            self._close(work, "cancelled", cost if delivered else None)
            work.delivered = delivered > 0
        else:
            assert code == "lease_lost"

    @rule(work_id=work_ids, off=stale)
    def void(self, work_id: str, off: int) -> None:
        work = self.works.get(work_id)
        attempt = (work.attempt if work else 1) + off
        ended = savepoint(self.conn, ledger.void, ending(work_id, attempt, now_ms=self.now))
        assert ended == (work is not None and work.open and off == 0)
        if ended:
            self._close(work, "failed", None)

    @rule(milliseconds=st.sampled_from([1, 700, 999, 1_000, 1_600]))
    def time_passes(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule()
    def reap(self) -> None:
        reaped = {gone.work_id for gone in savepoint(self.conn, ledger.reap, self.now)}
        dead = {
            work_id
            for work_id, work in self.works.items()
            if work.open and (work.lease <= self.now or work.deadline <= self.now)
        }
        assert reaped == dead
        for work_id in dead:
            self._close(self.works[work_id], "expired", None, lost=True)

    @rule(gateway=st.sampled_from(["gw_one", "gw_two"]))
    def crash_and_recover(self, gateway: str) -> None:
        ended = {gone.work_id for gone in savepoint(self.conn, ledger.recover, gateway, self.now)}
        left = {work_id for work_id, work in self.works.items() if work.open and work.gateway == gateway}
        assert ended == left
        for work_id in left:
            self._close(self.works[work_id], "failed", None, lost=True)

    @rule(work_id=consumes(work_ids))
    def forget(self, work_id: str) -> None:
        """Turn to other works."""

    # --- the model

    @staticmethod
    def _may_answer(work: Work | None, off: int) -> bool:
        return work is not None and work.state == "in_flight" and off == 0

    def _close(self, work: Work, state: str, cost: int | None, lost: bool = False) -> None:
        charge = 0 if cost is None else min(cost, work.held)
        self.available[work.request.account_id] += work.held - charge
        self.revenue += charge
        self.charged[work.request.key_id] = self.charged.get(work.request.key_id, 0) + charge
        work.state = state
        for scope, (claim_state, work_id) in list(self.claims.items()):
            if claim_state == "in_flight" and work_id == work.request.work_id:
                if cost is None and not lost:
                    del self.claims[scope]
                else:
                    self.claims[scope] = ("gone", work_id)

    @invariant()
    def books_agree(self) -> None:
        audit = ledger.check(self.conn)
        assert audit.sum_micro == 0
        assert audit.faults == ()
        for account_id, free in self.available.items():
            running = sum(
                work.held for work in self.works.values() if work.open and work.request.account_id == account_id
            )
            assert free >= 0
            assert ledger.credits(self.conn, account_id) == ledger.Credits(free, running)
        assert all(spent <= CAP for key, spent in self.charged.items() if "capped" in key)


LedgerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLedgerMachine = LedgerMachine.TestCase
