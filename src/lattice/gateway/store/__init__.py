"""The database: its schema, its migrations and the one writer that groups commits."""

from lattice.gateway.store.database import Store

__all__ = ["Store"]
