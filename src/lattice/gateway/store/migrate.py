"""Bring a database to the newest revision. Alembic, slow to import, is loaded only when there is something to do."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from lattice.core.errors import LatticeError

HEAD = "0003"
_MIGRATIONS = Path(__file__).with_name("migrations")
_ADVISORY_LOCK = 0x6C617474  # any constant will do: it only keeps gateways that start together from racing


def migrate(engine: Engine) -> None:
    """Run the missing revisions, each database's migration by one process at a time."""
    with engine.begin() as conn:
        if conn.dialect.name == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        if _revision(conn) != HEAD:
            _upgrade(conn)


def _revision(conn: Connection) -> str | None:
    if not inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(conn: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = conn
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise LatticeError("config_invalid", "The database was made by a newer Lattice than this one.") from None
