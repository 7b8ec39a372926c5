"""Encrypted inference as a service: blobs, uploads, models and versions, access tokens, evaluation keys, events."""
