"""Runtimes as records: creation, pairing, credentials, presence and what their owners see of them."""
