"""The allow-list: whose sealed work this machine opens. A running daemon sees a change at once."""

from __future__ import annotations

from typing import Literal

import msgspec

from lattice.core.errors import LatticeError
from lattice.runtime.state import StateDir
from lattice.sealing.identity import PublicIdentity

ALLOW_FILE = "allow.json"

Kind = Literal["app", "gateway"]


class AllowEntry(msgspec.Struct, frozen=True):
    """One sender key. `gateway` is the gateway's own, which seals for unmodified OpenAI clients."""

    key: str
    label: str
    kind: Kind
    added_at_ms: int


class AllowList:
    """`allow.json`, read again whenever the file changes."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self._stamp: tuple[int, int] | None = None
        self._entries: tuple[AllowEntry, ...] = ()
        self._raw: frozenset[bytes] = frozenset()

    def entries(self) -> tuple[AllowEntry, ...]:
        """What is allowed now."""
        self._refresh()
        return self._entries

    def allows(self, sender: PublicIdentity) -> bool:
        """Whether this sender's work may be opened. One stat call, because it is asked for every work."""
        self._refresh()
        return sender.raw in self._raw

    def add(self, key: str, label: str, kind: Kind, now_ms: int) -> AllowEntry:
        """Allow a sender; allowing one again renews its label."""
        try:
            canonical = PublicIdentity.from_text(key).text
        except (ValueError, LatticeError):
            message = "A sender key is 43 characters of base64url: the Ed25519 key that the app shows."
            raise LatticeError("invalid_request", message) from None
        entry = AllowEntry(canonical, label, kind, now_ms)
        self._save([e for e in self.entries() if e.key != canonical] + [entry])
        return entry

    def remove(self, key_or_label: str) -> list[AllowEntry]:
        """Stop allowing a sender, named by its key, a unique beginning of it (8 characters or more) or its label."""
        gone = [e for e in self.entries() if _names(e, key_or_label)]
        if not gone:
            raise LatticeError("not_found", "No allowed sender has that key or label: see `lattice-ctl apps list`.")
        if len(gone) > 1:
            raise LatticeError("invalid_request", "More than one allowed sender fits: give the whole key.")
        self._save([e for e in self.entries() if e not in gone])
        return gone

    def replace_gateway(self, key: str, label: str, now_ms: int) -> None:
        """Allow the gateway's key and no former gateway's: a machine has one gateway."""
        self._save([e for e in self.entries() if e.kind != "gateway"])
        self.add(key, label, "gateway", now_ms)

    def _refresh(self) -> None:
        stamp = self._state.stamp(ALLOW_FILE)
        if stamp == self._stamp:
            return
        self._entries = tuple(self._state.read(ALLOW_FILE, list[AllowEntry]) or ())
        self._raw = frozenset(PublicIdentity.from_text(e.key).raw for e in self._entries)
        self._stamp = stamp

    def _save(self, entries: list[AllowEntry]) -> None:
        self._state.write(ALLOW_FILE, entries)
        self._stamp = None
        self._refresh()


def _names(entry: AllowEntry, text: str) -> bool:
    return text in (entry.key, entry.label) or (len(text) >= 8 and entry.key.startswith(text))
