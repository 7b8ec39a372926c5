"""The machine's work key pairs: announced, looked up by id, rotated by the clock and destroyed when they expire."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import (
    MAX_CLOCK_SKEW_MS,
    OVERLAP_MS,
    KeyConfig,
    SignedKeyConfig,
    issue_key_config,
    verify_key_config,
)
from lattice.sealing.suites import WorkKeyPair, preferred_suite

WORK_KEYS_FILE = "work_keys.json"


class _Stored(msgspec.Struct, frozen=True):
    signed: str
    private: str

    def __repr__(self) -> str:
        return "_Stored(…)"


class _Entry(NamedTuple):
    config: KeyConfig
    signed: bytes
    pair: WorkKeyPair


class WorkKeys:
    """Interactive keys of one runtime, newest first. Call `rotate` often: it costs nothing until something is due."""

    def __init__(self, state: StateDir, identity: IdentityKey, runtime: str, clock: Clock) -> None:
        self._state = state
        self._identity = identity
        self._runtime = runtime
        self._clock = clock
        self._entries: list[_Entry] = self._load()
        self.rotate()

    @property
    def announcement(self) -> tuple[bytes, ...]:
        """Encoded signed key configs that senders may use, newest first."""
        now_ms = self._clock.now_ms()
        return tuple(entry.signed for entry in self._entries if entry.config.not_after_ms > now_ms)

    def rotate(self) -> bool:
        """Destroy what expired, make a new key when the newest nears its end; True when the announcement changed."""
        now_ms = self._clock.now_ms()
        kept = [e for e in self._entries if e.config.destroy_at_ms > now_ms]
        # A newest key from the future means that the clock was set back: senders would refuse it, so make another.
        usable = kept and kept[0].config.not_before_ms <= now_ms + MAX_CLOCK_SKEW_MS
        fresh = usable and kept[0].config.not_after_ms - now_ms > OVERLAP_MS
        if fresh and len(kept) == len(self._entries):
            return False
        if not fresh:
            signed, pair = issue_key_config(self._identity, self._runtime, "interactive", preferred_suite(), now_ms)
            config = verify_key_config(signed, self._identity.public, self._runtime)
            kept.insert(0, _Entry(config, signed.encode(), pair))
        self._entries = kept
        self._save()
        return True

    def pair(self, key_id: str) -> WorkKeyPair:
        """The private half for `key_id`, or `work_key_expired` when it is destroyed, or about to be.

        It opens for an hour longer than senders may seal to it, so that work sealed in the last minute still runs.
        """
        for entry in self._entries:
            if entry.config.key_id == key_id and self._clock.now_ms() < entry.config.destroy_at_ms:
                return entry.pair
        raise LatticeError("work_key_expired", "The machine holds no work key with that id.")

    def _load(self) -> list[_Entry]:
        entries = []
        for stored in self._state.read(WORK_KEYS_FILE, list[_Stored]) or ():
            try:
                signed = unb64url(stored.signed)
                config = verify_key_config(SignedKeyConfig.decode(signed), self._identity.public, self._runtime)
            except (LatticeError, ValueError):
                continue  # made for an earlier identity or runtime: useless here, and dropped at the next save
            pair = WorkKeyPair.from_bytes(unb64url(stored.private))
            entries.append(_Entry(config, signed, pair))
        return entries

    def _save(self) -> None:
        stored = [_Stored(b64url(e.signed), b64url(e.pair.to_bytes())) for e in self._entries]
        self._state.write(WORK_KEYS_FILE, stored)
