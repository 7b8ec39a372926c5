"""Every table of the gateway: whoever imports `metadata` from here has them all in it."""

from __future__ import annotations

from lattice.gateway.store import encrypted_schema, schema
from lattice.gateway.store.metadata import metadata

__all__ = ["encrypted_schema", "metadata", "schema"]
