"""Hardware classes: what a kind of machine costs by the second, and how the fleet driver makes one."""

from __future__ import annotations

import os

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select

from lattice.core.errors import LatticeError
from lattice.gateway.store.encrypted_schema import hardware_classes
from lattice.gateway.workers.rows import OWN

DEFAULT_PRICE = 500
"""Micro-credits per second of the class that a new gateway has: 1.8 credits an hour."""

MAX_PRICE = 10**12

_ALL = select(hardware_classes).order_by(hardware_classes.c.micro_per_second, hardware_classes.c.name)
_BY_NAME = select(hardware_classes).where(hardware_classes.c.name == bindparam("called"))


class HardwareClass(msgspec.Struct, frozen=True):
    """One row, in the table's order. `driver` is JSON for the fleet driver."""

    name: str
    micro_per_second: int
    cores: int
    memory_mib: int
    driver: str = "{}"


OWN_CLASS = HardwareClass(OWN, 0, 1, 1)
"""The provider's own machine: what it has is its own business, and its time costs nothing."""


def list_classes(conn: Connection) -> list[HardwareClass]:
    """The cheapest first."""
    return [HardwareClass(*row) for row in conn.execute(_ALL)]


def find_class(conn: Connection, name: str | None) -> HardwareClass:
    """The class of that name, the cheapest for None; `not_found` for one that does not exist."""
    if name == OWN:
        return OWN_CLASS
    if name is None:
        row = next(iter(conn.execute(_ALL)), None)
    else:
        row = conn.execute(_BY_NAME, {"called": name}).one_or_none()
    if row is None:
        raise LatticeError("not_found", "There is no hardware class of that name: `GET /v1/hardware-classes`.")
    return HardwareClass(*row)


def put_class(conn: Connection, given: HardwareClass) -> None:
    """Make or change a class; workers that run keep the price at which they were started."""
    if given.name == OWN:
        raise LatticeError("invalid_request", "`own` is the provider's own machine, which costs nothing.")
    conn.execute(delete(hardware_classes).where(hardware_classes.c.name == given.name))
    conn.execute(insert(hardware_classes), msgspec.structs.asdict(given))


def ensure_default(conn: Connection) -> None:
    """A new gateway can start workers on its own machine."""
    if conn.execute(select(func.count()).select_from(hardware_classes)).scalar():
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 if hasattr(os, "sysconf") else 8192
    put_class(conn, HardwareClass("small", DEFAULT_PRICE, max(1, (os.cpu_count() or 1) // 2), max(1, memory // 2)))
