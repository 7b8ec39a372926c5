"""Encrypted queries: taken from end users, queued for workers, answered with what only the user can decrypt."""
