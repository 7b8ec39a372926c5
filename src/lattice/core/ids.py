"""Prefixed, time-sortable ids and the prefixes of secrets.

An id is `<prefix>_` and 26 characters of Crockford base32: 48 bits of milliseconds, then 80 random bits (the ULID
layout), so that ids sort by creation and a list's cursor is simply its last id.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from enum import StrEnum

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]
_BODY = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")


class Prefix(StrEnum):
    """What an id names. The public prefixes are fixed (architecture, "Names")."""

    ACCOUNT = "acc"
    WORKSPACE = "org"
    KEY = "key"
    RUNTIME = "lat"
    WORK = "work"
    HOLD = "hold"
    ENTRY = "ent"
    REQUEST = "req"
    SESSION = "ses"
    GATEWAY = "gw"
    BOOTSTRAP = "bst"
    USAGE = "use"
    MODEL = "mdl"
    UPLOAD = "upl"
    ACCESS_TOKEN = "tok"  # noqa: S105
    EVALUATION_KEYS = "evk"
    WORKER = "wkr"
    QUERY = "qry"
    DATABASE = "edb"
    EVENT = "evt"


class SecretPrefix(StrEnum):
    """What a secret opens. Secrets are shown once and stored only as an HMAC."""

    DEVELOPER_KEY = "sk_lat"
    BOOTSTRAP = "lbt"
    RUNTIME_CREDENTIAL = "rlc"
    ACCESS_TOKEN = "eut"  # noqa: S105
    WEBHOOK = "whs"


def new_id(prefix: Prefix, now_ms: int, random: bytes | None = None) -> str:
    """Make an id for `prefix`. `random` (10 bytes) is for tests; the default comes from the operating system."""
    value = (now_ms & 0xFFFFFFFFFFFF) << 80 | int.from_bytes(random or os.urandom(10), "big")
    parts = [_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)]
    return f"{prefix.value}_{''.join(parts)}"


def is_id(prefix: Prefix, text: str) -> bool:
    """Whether `text` is a well-formed id of that kind."""
    head, _, body = text.rpartition("_")
    return head == prefix.value and _BODY.fullmatch(body) is not None


def new_secret(prefix: SecretPrefix, size: int = 32) -> str:
    """Make a secret of `size` random bytes, unpadded base64url behind its prefix."""
    return f"{prefix.value}_{b64url(secrets.token_bytes(size))}"


def b64url(data: bytes) -> str:
    """Unpadded base64url (RFC 4648 section 5), the text form of every key, hash and signature."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Decode unpadded base64url strictly: ValueError for padding, foreign characters or non-canonical bits."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data
