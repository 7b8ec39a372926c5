"""Workers that start, poll, die and run out of credits in any order, against a model that only knows what was promised.

The model adds up contacts: between two contacts of one session in state active the worker is billed, but never past
what the earlier reply had sold. It shares no code with the gateway's billing. After every interleaving the postings sum
to zero, wallets equal entries, nothing is held and no balance was ever negative.

In between versions are published, and workers load, switch to, or fail to load them, in the very transactions that
bill them. None of that moves money, no worker goes back to an older version but from one that it could not load, none
leaves queries behind without a worker, and no queue stays with a version that nobody serves while another takes it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from sqlalchemy import Connection, func, select

from lattice.core.errors import LatticeError
from lattice.gateway import ledger
from lattice.gateway.encrypted.model_rows import NewModel, create_model
from lattice.gateway.ledger import Grant
from lattice.gateway.queries import rows as query_rows
from lattice.gateway.queries.rows import NewQuery
from lattice.gateway.store.schema import entries
from lattice.gateway.workers import billing, rollout
from lattice.gateway.workers.rollout import Programs
from lattice.gateway.workers.rows import WorkerRow, current_rate, get_worker, open_workers
from lattice.gateway.workers.slices import DRAIN_MS, SLICE_MS
from tests.support.ledger import NOW, account, memory
from tests.support.workers import add_version, new_worker

PRICES = (0, 1, 7, 333, 1_000, 5_000, 1_234_567)
STEPS = (1, 50, 999, 2_500, 5_000, 9_999, 10_000, 14_999, 15_001, 20_000, 130_000)


class Model:
    """What is promised about one worker."""

    def __init__(self, row: WorkerRow) -> None:
        self.id = row.id
        self.price = row.price_micro_per_second
        self.billed = 0
        self.seen: int | None = None  # the last contact, while active
        self.sold = 0  # until when the last reply sold, with the reserve
        self.session = "s0"
        self.told: str | None = None  # why it was asked to stop
        self.over = False

    def contact(self, now: int) -> None:
        if self.seen is not None:
            moment = max(self.seen, min(now, self.sold))
            self.billed += moment - self.seen
            self.seen = moment


class Machine:
    """One interleaving."""

    def __init__(self, conn: Connection, seed: int) -> None:
        self.conn = conn
        self.random = random.Random(seed)
        self.now = NOW
        self.granted = {account(conn).id: 0 for _ in range(2)}
        self.workers: list[Model] = []
        self.sessions = 0
        self.models = {owner: create_model(conn, NewModel(account_id=owner, name="m"), NOW) for owner in self.granted}
        self.artefacts: dict[str, list[bytes]] = {owner: [] for owner in self.granted}
        for owner in self.granted:
            self.publish(owner)

    def run(self, steps: int) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (3, self.start),
            (4, self.grant),
            (14, self.poll),
            (2, self.poll_loading),
            (2, self.reconnect),
            (2, self.die),
            (2, self.stop),
            (2, self.goodbye),
            (3, self.sweep),
            (1, self.step_back),
            (1, self.publish),
            (2, self.ask),
            (3, self.rehome),
            (12, self.redeploy),
            (6, self.take),
        ]
        weights = [weight for weight, _ in actions]
        self.grant()
        self.start()
        for _ in range(steps):
            self.now += self.random.choice(STEPS[: self.random.randint(1, len(STEPS))])
            self.random.choices(actions, weights)[0][1]()
            self.check_wallets()
        self.end_all()

    def pick(self) -> Model | None:
        return self.random.choice(self.workers) if self.workers else None

    # --- what happens

    def grant(self) -> None:
        to = self.random.choice(list(self.granted))
        amount = self.random.choice((1, 90, 10_000, 80_000, 3_000_000))
        ledger.grant(
            self.conn, Grant(account_id=to, amount_micro=amount, reference=os.urandom(8).hex(), now_ms=self.now)
        )
        self.granted[to] += amount

    def start(self) -> None:
        owner = self.random.choice(list(self.granted))
        version = self.random.randint(1, len(self.artefacts[owner]))
        model = self.models[owner].id
        price = self.random.choice(PRICES)
        self.workers.append(Model(new_worker(self.conn, owner, price, self.now, model_id=model, version=version)))

    def poll(self, model: Model | None = None) -> None:
        model = model or self.pick()
        if model is None:
            return
        row = self.contact(model, active=True)
        if row is None:
            return
        if row.state == "active":
            assert row.paid_until_ms is not None
            assert row.last_seen_ms is not None
            if model.seen is None or self.now > model.sold:  # begins, or begins anew after everything sold had run out
                model.seen = self.now
            model.sold = row.paid_until_ms + DRAIN_MS
            assert row.paid_until_ms > max(self.now, model.seen)
            assert row.paid_until_ms <= max(self.now, model.seen) + SLICE_MS or model.seen > self.now
        elif row.state == "stopping" and model.told is None:
            self.require_exhausted(row)
            model.told = row.reason
            assert row.paid_until_ms is not None
            model.sold = row.paid_until_ms + DRAIN_MS
            assert model.sold <= max(self.now, row.last_seen_ms or 0) + DRAIN_MS  # it stops within the reserve
        elif row.state == "stopped":
            self.require_exhausted(row)
            model.over = True
        self.require_billed(model)

    def poll_loading(self) -> None:
        model = self.pick()
        row = self.contact(model, active=False) if model else None
        if model is not None and row is not None and row.state == "starting":
            model.seen = None
            self.require_billed(model)

    def contact(self, model: Model, active: bool) -> WorkerRow | None:
        with self.conn.begin_nested():
            try:
                row = billing.contact(self.conn, model.id, model.session, active, self.now)
            except LatticeError as error:
                if error.code != "worker_stopped" or not model.over:
                    raise
                return None
        assert not model.over
        model.contact(self.now)
        return self.roll(row)

    # --- versions

    def publish(self, owner: str | None = None) -> None:
        """A version that is ready; every other one is interchangeable with its neighbours."""
        owner = owner or self.random.choice(list(self.granted))
        artefact = os.urandom(32)
        self.artefacts[owner].append(artefact)
        add_version(self.conn, self.models[owner], artefact, bytes([len(self.artefacts[owner]) // 2]) * 32)

    def redeploy(self) -> None:
        """A new version with a query of the old one in the queue, and some of the workers soon hear of it."""
        asked = self.pick()
        if asked is None or asked.over:
            return
        self.publish(get_worker(self.conn, asked.id).account_id)
        for act in (self.ask, self.poll, self.poll):
            self.now += self.random.choice((1, 50, 999))
            act(asked)

    def ask(self, asked: Model | None = None) -> None:
        """A query for what a worker serves now; it may switch, or be gone, before it takes the query."""
        asked = asked or self.pick()
        if asked is None:
            return
        row = get_worker(self.conn, asked.id)
        owner = row.account_id
        new = NewQuery(
            account_id=owner,
            model_id=self.models[owner].id,
            version=row.version,
            token_id="tok_one",
            user="ada",
            evaluation_key_id="evk_one",
            verify=self.random.choice((1, 1, 2)),
            input_sha256=bytes(32),
            input_bytes=1,
            database_id=None,
            deadline_ms=self.now + 10**9,
        )
        query_rows.add_query(self.conn, new, self.now)

    def take(self) -> None:
        """A worker empties the queue of its version (by failing it: there are no keys here), and is heard again."""
        model = self.pick()
        if model is None or model.over:
            return
        row = get_worker(self.conn, model.id)
        query_rows.lease(self.conn, row.id, row.model_id, row.version, 100, frozenset(), self.now)
        self.poll(model)

    def roll(self, row: WorkerRow) -> WorkerRow:
        """The rest of a poll's transaction: the worker has loaded something, or not, or cannot."""
        known = self.artefacts[row.account_id]
        newest, current = known[-1].hex(), known[row.version - 1].hex()
        said = self.random.choice(
            (
                Programs(),
                Programs(frozenset({current})),
                Programs(frozenset({current, newest})),
                Programs(frozenset({current}), no_room=newest),
                Programs(frozenset({current}), rejected=newest, reason="artefact_invalid"),
                Programs(frozenset(), rejected=current, reason="artefact_invalid"),
            )
        )
        step = rollout.step(self.conn, row, said, self.now)
        after = get_worker(self.conn, row.id)
        assert step.row == after
        money = ("state", "reason", "billed_ms", "billed_micro", "held_micro", "paid_until_ms", "last_seen_ms")
        assert [getattr(after, name) for name in money] == [getattr(row, name) for name in money]
        if after.version != row.version:
            failed_here = said.rejected == current and after.failed_version == row.version > after.version
            assert failed_here or (after.version == len(known) and newest in (*said.loaded, said.no_room))
            rows = open_workers(self.conn, model_id=row.model_id)
            left = sum(each.version == row.version and each.state == "active" for each in rows)
            needed = query_rows.workers_needed(self.conn, row.model_id, row.version)
            assert failed_here or left >= needed, "a switch leaves no query without a worker"
        if step.offer is not None:
            assert step.offer == rollout.Offer(len(known), newest)
            assert after.failed_version != len(known) > after.version
        return after

    def rehome(self) -> None:
        rollout.rehome(self.conn)
        for queue in query_rows.waiting(self.conn):
            needed = query_rows.workers_needed(self.conn, queue.model_id, queue.version)
            serving = [
                row.version for row in open_workers(self.conn, model_id=queue.model_id) if row.state != "stopping"
            ]
            alike = [version for version in serving if version // 2 == queue.version // 2]
            assert serving.count(queue.version) >= needed or all(serving.count(other) < needed for other in alike)

    def reconnect(self) -> None:
        """Another process polls for the worker; the old one is never billed for the gap."""
        model = self.pick()
        if model is None or model.over:
            return
        self.sessions += 1
        model.session = f"s{self.sessions}"
        if model.told is None:
            model.seen = None
        else:
            model.sold = model.seen or 0  # nothing is sold to a process that comes to stop
        self.poll(model)

    def die(self) -> None:
        model = self.pick()
        if model is None:
            return
        row = billing.lost(self.conn, model.id, self.now)
        if not model.over:
            model.over = model.told is not None
            assert row.state == ("stopped" if model.over else "starting")
            model.seen = None if not model.over else model.seen
        self.require_billed(model)

    def stop(self) -> None:
        model = self.pick()
        if model is None:
            return
        row = billing.stop(self.conn, model.id, "requested", self.now)
        if model.over or model.told is not None:
            return
        if model.seen is None:
            assert row.state == "stopped"
            model.over = True
        else:
            assert (row.state, row.reason) == ("stopping", "requested")
            assert row.paid_until_ms is not None
            model.told, model.sold = "requested", row.paid_until_ms + DRAIN_MS
        self.require_billed(model)

    def goodbye(self) -> None:
        model = self.pick()
        if model is None or model.over:
            return
        model.contact(self.now)
        row = billing.end(self.conn, model.id, "failed", self.now, seen=True)
        assert row.reason == (model.told or "failed")
        model.over = True
        self.require_billed(model)

    def sweep(self) -> None:
        """Also what a gateway does at its start: whoever was silent for longer than was sold is settled as seen."""
        gone = {row.id for row in billing.lapse(self.conn, self.now)}
        for model in self.workers:
            if model.id in gone:
                assert not model.over
                model.over = True
            elif not model.over and model.seen is not None:
                assert self.now <= model.seen + SLICE_MS + DRAIN_MS
            self.require_billed(model)

    def step_back(self) -> None:
        self.now -= self.random.choice((1, 4_000, 60_000))

    def end_all(self) -> None:
        self.rehome()
        for model in self.workers:
            billing.end(self.conn, model.id, "failed", self.now)
            model.over = True
            self.require_billed(model)
        audit = ledger.check(self.conn)
        assert (audit.sum_micro, audit.held_micro, audit.faults) == (0, 0, ())
        for owner, granted in self.granted.items():
            spent = sum(
                row.billed_micro
                for row in (get_worker(self.conn, model.id) for model in self.workers)
                if row.account_id == owner
            )
            assert ledger.credits(self.conn, owner) == ledger.Credits(granted - spent, 0)

    # --- what must hold

    def require_billed(self, model: Model) -> None:
        row = get_worker(self.conn, model.id)
        assert row.billed_ms == model.billed
        assert row.billed_micro == model.billed * model.price // 1000
        assert (row.state == "stopped") == model.over == (row.ended_at_ms is not None)
        if model.over or model.seen is None:
            assert row.held_micro == 0

    def require_exhausted(self, row: WorkerRow) -> None:
        assert row.reason == "credits_exhausted"
        left = ledger.credits(self.conn, row.account_id).available_micro
        assert left * 1000 < (DRAIN_MS + 1) * row.price_micro_per_second + 1000

    def check_wallets(self) -> None:
        for owner in self.granted:
            balance = ledger.credits(self.conn, owner)
            assert balance.available_micro >= 0
            assert balance.held_micro >= 0
            rows = [
                row for row in (get_worker(self.conn, model.id) for model in self.workers) if row.account_id == owner
            ]
            assert balance.held_micro == sum(row.held_micro for row in rows)
            assert balance.available_micro + balance.held_micro == self.granted[owner] - sum(
                row.billed_micro for row in rows
            )
            assert current_rate(self.conn, owner) == sum(
                row.price_micro_per_second for row in rows if row.state == "active"
            )


def interleave(seeds: range, steps: int) -> None:
    for first in range(seeds.start, seeds.stop, 25):  # SQLite slows down as rolled back savepoints pile up
        with memory() as conn:
            for seed in range(first, min(first + 25, seeds.stop)):
                run_one(conn, seed, steps)


def run_one(conn: Connection, seed: int, steps: int) -> None:
    with conn.begin_nested() as point:
        try:
            Machine(conn, seed).run(steps)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        point.rollback()


def test_some_interleavings() -> None:
    interleave(range(150), 12)


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_ten_thousand_interleavings() -> None:
    cores, each = os.cpu_count() or 1, 500
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        for done in [pool.submit(interleave, range(at, at + each), 12) for at in range(10_000, 20_000, each)]:
            done.result()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_long_interleaving() -> None:
    """Rounding does not drift however long a session lives."""
    with memory() as conn:
        Machine(conn, 5).run(2_000)


def test_entries_name_the_worker_and_say_what_they_are() -> None:
    with memory() as conn:
        owner = account(conn, 1_000_000)
        row = new_worker(conn, owner.id, 1_000, NOW)
        billing.contact(conn, row.id, "s", True, NOW)
        billing.contact(conn, row.id, "s", True, NOW + 3_000)
        billing.stop(conn, row.id, "requested", NOW + 4_000)
        billing.end(conn, row.id, "requested", NOW + 5_000, seen=True)
        found = conn.execute(
            select(entries.c.kind, func.sum(entries.c.amount_micro).filter(entries.c.amount_micro > 0))
            .where(entries.c.work_id == row.id)
            .group_by(entries.c.kind)
        )
        assert {kind: int(amount) for kind, amount in found} == {
            "worker_hold": 15_000 + 3_000,
            "worker_charge": 5_000,
            "worker_release": 13_000,
        }
