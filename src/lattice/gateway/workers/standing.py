"""Which versions of a model are served, and which one a new query meets.

A worker serves the version that it is heading for: the one that it has, or the one that it has loaded beside it and
switches to as soon as no query of the old one is left. What no worker serves yet, but will when it is loaded, is
coming.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.version_rows import VersionRow, get_version, ready_version, ready_versions
from lattice.gateway.workers.rows import WorkerRow, open_workers


class Standing(msgspec.Struct, frozen=True):
    """How many workers serve a version now, and how many do or will."""

    version: VersionRow
    served: int
    coming: int

    def rank(self, needed: int) -> tuple[bool, bool, int]:
        """Greater is better: served by enough workers, then soon served by enough, then newer."""
        return self.served >= needed, self.coming >= needed, self.version.number


def standings(conn: Connection, model_id: str) -> list[Standing]:
    """The newest version that is ready, and every other one that a worker serves; newest first."""
    newest = ready_version(conn, model_id)
    if newest is None:
        return []
    workers = [row for row in open_workers(conn, model_id=model_id) if row.state in ("starting", "active")]
    others = ready_versions(conn, model_id, {row.heading for row in workers} - {newest.number})
    return [stand(version, newest.number, workers) for version in (newest, *others)]


def stand(version: VersionRow, newest: int, workers: Iterable[WorkerRow]) -> Standing:
    """One version's, among the model's workers that start or are active."""
    served = coming = 0
    for row in workers:
        serves = row.heading == version.number
        served += serves and row.state == "active"
        coming += serves or will_serve(row, version.number, newest)
    return Standing(version, served, coming)


def will_serve(row: WorkerRow, version: int, newest: int) -> bool:
    """Whether a worker of an older version goes on to this one: only to the newest, and not if it failed to load it."""
    return version == newest > row.heading and row.failed_version != version


def current(found: list[Standing]) -> Standing:
    """What a user is told to encrypt for."""
    return max(found, key=lambda each: each.rank(1))


def asked_version(conn: Connection, model_id: str, number: int | None) -> VersionRow:
    """That version, or the current one for None. Raises `model_not_ready` for one that is not ready."""
    if number is None:
        found = standings(conn, model_id)
        version = current(found).version if found else None
    else:
        version = get_version(conn, model_id, number)
    if version is None or version.state != "ready":
        raise LatticeError("model_not_ready")
    return version
