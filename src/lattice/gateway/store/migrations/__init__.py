"""Alembic migrations; they ship inside the package and run when a store opens."""
