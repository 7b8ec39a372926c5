"""Encrypted queries: taken from end users, queued for workers, answered with ciphertexts that only the user can open."""
