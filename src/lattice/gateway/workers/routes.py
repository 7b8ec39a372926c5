"""The provider's routes for workers, hardware classes, the statement and top-ups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Depends
from sqlalchemy import Connection, case, func, select
from starlette.requests import Request
from starlette.responses import Response

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.api.access import caller, create, target_account
from lattice.gateway.api.paging import DEFAULT_LIMIT, Cursor, Limit, page, require_cursor
from lattice.gateway.api.views import AccountId, Page
from lattice.gateway.encrypted.model_rows import get_model
from lattice.gateway.identity import KeyRecord, Scope
from lattice.gateway.ledger import credits
from lattice.gateway.ledger.postings import GRANTS, REVENUE
from lattice.gateway.store.schema import entries, workers
from lattice.gateway.workers.fleet import Started
from lattice.gateway.workers.hardware import HardwareClass, find_class, list_classes, put_class
from lattice.gateway.workers.payments import TopUp
from lattice.gateway.workers.rows import OWN, WorkerRow, current_rate, get_worker, list_workers
from lattice.gateway.workers.scaling import read_scaling
from lattice.gateway.workers.views import (
    HardwareBody,
    HardwareList,
    HardwareView,
    NewWorkersBody,
    NewWorkersView,
    NewWorkerView,
    StatementView,
    TopUpBody,
    TopUpView,
    WorkerView,
)

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway


def routers(gateway: Gateway) -> tuple[APIRouter, ...]:
    """All of them."""
    return (_workers(gateway), _hardware(gateway), _money(gateway))


def _workers(gateway: Gateway) -> APIRouter:
    api = APIRouter(tags=["workers"])
    manager = caller(gateway, Scope.WORKERS_MANAGE)
    fleet, service = gateway.workers.fleet, gateway.workers.service
    of_model = "/v1/encrypted-models/{model}/workers"

    @api.post(of_model, status_code=201, response_model=NewWorkersView)
    async def start_workers(
        request: Request, model: str, body: NewWorkersBody, record: KeyRecord = Depends(manager)
    ) -> Response:
        """Start workers of the model's newest version. One of class `own` is started by its provider."""
        made: dict[str, Started] = {}

        def act(conn: Connection, _: str | None) -> bytes:
            row = get_model(conn, record.account_id, model)
            wanted = body.hardware_class or read_scaling(row.settings).hardware_class
            if wanted is None and row.weights_exposure == "own":
                wanted = OWN
            started = fleet.add(conn, row, wanted, body.count)
            made.clear()
            made.update((each.row.id, each) for each in started)
            return NewWorkersView(data=[_new(each) for each in started]).model_dump_json().encode()

        answer = await create(gateway, request, record, act)
        for started in made.values():  # none where an idempotency key had its answer already
            await fleet.launch(started)
        return answer

    @api.get(of_model)
    async def read_model_workers(
        model: str, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, record: KeyRecord = Depends(manager)
    ) -> Page[WorkerView]:
        """The model's workers, stopped ones too, newest first."""
        await gateway.store.read(get_model, record.account_id, model)
        return await _list(gateway, record, limit, cursor, model_id=model)

    @api.get("/v1/workers")
    async def read_workers(
        limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, record: KeyRecord = Depends(manager)
    ) -> Page[WorkerView]:
        """The account's workers that have not stopped, newest first."""
        return await _list(gateway, record, limit, cursor, ended=False)

    @api.get("/v1/worker-sessions")
    async def read_sessions(
        limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None, record: KeyRecord = Depends(manager)
    ) -> Page[WorkerView]:
        """Every worker session of the account with its time and its cost, newest first."""
        return await _list(gateway, record, limit, cursor)

    @api.get("/v1/workers/{worker}")
    async def read_worker(worker: str, record: KeyRecord = Depends(manager)) -> WorkerView:
        """One worker."""
        return WorkerView.of(await gateway.store.read(get_worker, worker, record.account_id))

    @api.delete("/v1/workers/{worker}")
    async def stop_worker(worker: str, record: KeyRecord = Depends(manager)) -> WorkerView:
        """Stop a worker: it finishes what it can within its reserve and leaves. Stopping again changes nothing."""
        await gateway.store.read(get_worker, worker, record.account_id)
        return WorkerView.of(await service.endings.stop(worker, "requested"))

    return api


async def _list(
    gateway: Gateway,
    record: KeyRecord,
    limit: int,
    cursor: str | None,
    *,
    model_id: str | None = None,
    ended: bool | None = None,
) -> Page[WorkerView]:
    require_cursor(Prefix.WORKER, cursor)
    rows = await gateway.store.read(
        list_workers, record.account_id, model_id=model_id, ended=ended, cursor=cursor, limit=limit + 1
    )
    return page(rows, limit, WorkerView.of)


def _new(started: Started) -> NewWorkerView:
    own = started.row.hardware_class == OWN
    view = WorkerView.of(started.row)
    return NewWorkerView(**view.model_dump(), credential=started.credential if own else None)


def _hardware(gateway: Gateway) -> APIRouter:
    api = APIRouter(tags=["workers"])
    anyone, admin = caller(gateway), caller(gateway, Scope.ADMIN)

    @api.get("/v1/hardware-classes")
    async def read_classes(record: KeyRecord = Depends(anyone)) -> HardwareList:
        """The kinds of machine that workers can run on, the cheapest first."""
        return HardwareList(data=[HardwareView.of(row) for row in await gateway.store.read(list_classes)])

    @api.put("/v1/hardware-classes/{name}")
    async def set_class(name: str, body: HardwareBody, record: KeyRecord = Depends(admin)) -> HardwareView:
        """Make or change a class; workers that run keep the price at which they were started."""
        if not 1 <= len(name) <= 100 or not name.isprintable():
            raise LatticeError("invalid_request", "A class's name has 1 to 100 printable characters.")
        driver = msgspec.json.encode(body.driver).decode()
        given = HardwareClass(name, body.micro_per_second, body.cores, body.memory_mib, driver)
        await gateway.store.write(put_class, given)
        return HardwareView.of(await gateway.store.read(find_class, name))

    return api


def _money(gateway: Gateway) -> APIRouter:
    api = APIRouter(tags=["credits"])
    reader, anyone = caller(gateway, Scope.CREDITS_READ), caller(gateway)

    @api.get("/v1/credits/statement")
    async def read_statement(account: AccountId | None = None, record: KeyRecord = Depends(reader)) -> StatementView:
        """What was granted and spent, what runs now, and how long the balance lasts at that rate."""
        return await gateway.store.read(_statement, target_account(record, account))

    @api.post("/v1/credits/top-ups", status_code=201, response_model=TopUpView)
    async def top_up(request: Request, body: TopUpBody, record: KeyRecord = Depends(anyone)) -> Response:
        """Add credits through the operator's payment adapter; unless one is set up, administrators grant them."""
        owner = target_account(record, body.account)

        def act(conn: Connection, reference: str | None) -> bytes:
            now = gateway.clock.now_ms()
            wanted = TopUp(
                account_id=owner,
                amount_micro=body.amount_micro,
                reference=reference or new_id(Prefix.ENTRY, now),
                now_ms=now,
            )
            gateway.workers.payments.top_up(conn, record, wanted)
            balance = credits(conn, owner)
            view = TopUpView(
                account=owner,
                amount_micro=body.amount_micro,
                available_micro=balance.available_micro,
                held_micro=balance.held_micro,
            )
            return view.model_dump_json().encode()

        return await create(gateway, request, record, act)

    return api


def _statement(conn: Connection, account_id: str) -> StatementView:
    balance, rate = credits(conn, account_id), current_rate(conn, account_id)
    running: list[WorkerRow] = list_workers(conn, account_id, ended=False, limit=200)
    worker_ms, worker_micro = conn.execute(
        select(
            func.coalesce(func.sum(workers.c.billed_ms), 0), func.coalesce(func.sum(workers.c.billed_micro), 0)
        ).where(workers.c.account_id == account_id)
    ).one()
    amount = entries.c.amount_micro
    spent, granted = conn.execute(
        select(
            func.coalesce(func.sum(case((entries.c.ledger_account == REVENUE, amount), else_=0)), 0),
            func.coalesce(func.sum(case((entries.c.ledger_account == GRANTS, -amount), else_=0)), 0),
        ).where(entries.c.account_id == account_id)
    ).one()
    total = balance.available_micro + balance.held_micro
    return StatementView(
        account=account_id,
        available_micro=balance.available_micro,
        held_micro=balance.held_micro,
        micro_per_second=rate,
        remaining_seconds=total // rate if rate else None,
        worker_ms=int(worker_ms),
        worker_micro=int(worker_micro),
        other_micro=int(spent) - int(worker_micro),
        granted_micro=int(granted),
        workers=[WorkerView.of(row) for row in running],
    )
