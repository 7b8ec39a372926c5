"""Fixed keys, times and ids of the test vectors, and small edits that make good bytes bad."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import KEY_CONFIG_LABEL, SignedKeyConfig, issue_key_config
from lattice.sealing.suites import Suite, WorkKeyPair

NOW_MS = 1_767_225_600_000
RUNTIME = "lat_01kdv2f3000000000000000000"
WORK_ID = "work_01kdv2f3000000000000000001"
MODEL = f"lattice:personal:{RUNTIME}"
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hello \xe2\x9c\x93"}]}'
Json = dict[str, Any]


def fixed(label: str, size: int = 32) -> bytes:
    """Deterministic stand-ins for randomness."""
    return hashlib.shake_256(b"lattice vectors " + label.encode()).digest(size)


RUNTIME_KEY = IdentityKey.from_bytes(fixed("runtime identity"))
SENDER_KEY = IdentityKey.from_bytes(fixed("sender identity"))
STRANGER_KEY = IdentityKey.from_bytes(fixed("stranger identity"))


def flip(data: bytes, index: int) -> bytes:
    """The same bytes with one bit changed."""
    index %= len(data)
    return data[:index] + bytes((data[index] ^ 1,)) + data[index + 1 :]


def edit(encoded: bytes, **members: Any) -> bytes:
    """JSON with members replaced, or removed where the value is `...`."""
    value = {**json.loads(encoded), **members}
    return json.dumps({k: v for k, v in value.items() if v is not ...}, separators=(",", ":")).encode()


def issued(suite: Suite, purpose: Any = "interactive") -> tuple[SignedKeyConfig, WorkKeyPair]:
    """The fixed key config of a suite."""
    seed = fixed(f"work key seed {suite.value} {purpose}")
    return issue_key_config(RUNTIME_KEY, RUNTIME, purpose, suite, NOW_MS, seed=seed)


def signed_config(config: bytes, key: IdentityKey = RUNTIME_KEY, label: bytes = KEY_CONFIG_LABEL) -> bytes:
    """An encoded, correctly signed config of any content."""
    return SignedKeyConfig(config, key.sign(label, config)).encode()
