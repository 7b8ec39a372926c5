"""The key store: this app's sender key, the pinned identity keys of machines, and pairings that wait for their proof.

One immutable `StoreState`, changed by pure functions; a file (`DiskKeyStore`) or memory (`MemoryKeyStore`) holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from lattice.core.ids import b64url, unb64url
from lattice.sealing.identity import IdentityKey, PublicIdentity

MAX_PENDING = 8
"""Unproved pairings kept for one machine; minting more forgets the oldest."""


class Pin(msgspec.Struct, frozen=True):
    """An identity key that this app trusts for one machine of one gateway, and why."""

    origin: str
    runtime: str
    identity: str
    basis: Literal["pairing", "fingerprint"]
    pinned_at_ms: int

    @property
    def public(self) -> PublicIdentity:
        """The pinned key."""
        return PublicIdentity.from_text(self.identity)


class PendingPairing(msgspec.Struct, frozen=True):
    """A bootstrap string that was minted here and whose HMAC has not come back yet. The repr hides the secret."""

    origin: str
    runtime: str
    secret: str
    app_key: str
    minted_at_ms: int

    def __repr__(self) -> str:
        return f"PendingPairing(runtime={self.runtime!r})"


class StoreState(msgspec.Struct, frozen=True):
    """Everything a store holds."""

    version: int = 1
    sender: str | None = None
    pins: tuple[Pin, ...] = ()
    pending: tuple[PendingPairing, ...] = ()

    def __repr__(self) -> str:
        return f"StoreState(pins={len(self.pins)}, pending={len(self.pending)})"


class StateHolder(Protocol):
    """Where a `StoreState` lives."""

    def read(self) -> StoreState:
        """The current state."""
        ...

    def update(self, change: Callable[[StoreState], StoreState]) -> StoreState:
        """Replace the state by `change` of it, atomically, and return the new one."""
        ...


class KeyStore:
    """What clients ask a store for, whatever holds its state."""

    def __init__(self, holder: StateHolder) -> None:
        self._holder = holder
        self._sender: IdentityKey | None = None

    def sender(self) -> IdentityKey:
        """This app's Ed25519 sender key; made on first use."""
        if self._sender is None:
            state = self._holder.read()
            if state.sender is None:
                state = self._holder.update(_with_sender)
            self._sender = IdentityKey.from_bytes(unb64url(state.sender or ""))
        return self._sender

    def pin(self, origin: str, runtime: str) -> Pin | None:
        """The pin of a machine, if there is one."""
        return next((p for p in self._holder.read().pins if (p.origin, p.runtime) == (origin, runtime)), None)

    def pins(self) -> tuple[Pin, ...]:
        """Every pin."""
        return self._holder.read().pins

    def pending(self, origin: str, runtime: str) -> tuple[PendingPairing, ...]:
        """The pairings of a machine that wait for their proof, newest first."""
        found = [p for p in self._holder.read().pending if (p.origin, p.runtime) == (origin, runtime)]
        return tuple(reversed(found))

    def add_pending(self, pairing: PendingPairing) -> None:
        """Remember a minted secret until its HMAC is verified."""
        self._holder.update(lambda state: _with_pending(state, pairing))

    def drop_pending(self, pairing: PendingPairing) -> None:
        """Forget a secret that no bootstrap token carries."""
        self._holder.update(
            lambda state: msgspec.structs.replace(state, pending=tuple(p for p in state.pending if p != pairing))
        )

    def save_pin(self, pin: Pin, proved: PendingPairing | None = None) -> None:
        """Pin, replacing an older pin of the machine, and forget the pairings up to the one that was `proved`."""
        self._holder.update(lambda state: _with_pin(state, pin, proved))

    def forget(self, origin: str, runtime: str) -> None:
        """Drop the pin and the unproved pairings of a machine (it was revoked)."""
        self._holder.update(lambda state: _without(state, origin, runtime))


class MemoryStore:
    """State that ends with the process: tests, and servers that keep their keys elsewhere."""

    def __init__(self, state: StoreState | None = None) -> None:
        self._state = state or StoreState()
        self._lock = threading.Lock()

    def read(self) -> StoreState:
        """The current state."""
        return self._state

    def update(self, change: Callable[[StoreState], StoreState]) -> StoreState:
        """Replace the state under the lock."""
        with self._lock:
            self._state = change(self._state)
            return self._state


def memory_key_store(sender: IdentityKey | None = None) -> KeyStore:
    """A key store in memory, with a given sender key or a fresh one."""
    return KeyStore(MemoryStore(StoreState(sender=b64url(sender.to_bytes()) if sender else None)))


def _with_sender(state: StoreState) -> StoreState:
    if state.sender is not None:  # another process was first
        return state
    return msgspec.structs.replace(state, sender=b64url(IdentityKey.generate().to_bytes()))


def _with_pending(state: StoreState, pairing: PendingPairing) -> StoreState:
    key = (pairing.origin, pairing.runtime)
    others = tuple(p for p in state.pending if (p.origin, p.runtime) != key)
    same = tuple(p for p in state.pending if (p.origin, p.runtime) == key)
    return msgspec.structs.replace(state, pending=(*others, *same[-MAX_PENDING + 1 :], pairing))


def _with_pin(state: StoreState, pin: Pin, proved: PendingPairing | None) -> StoreState:
    key = (pin.origin, pin.runtime)
    pins = (*(p for p in state.pins if (p.origin, p.runtime) != key), pin)
    keep = tuple(
        p
        for p in state.pending
        if (p.origin, p.runtime) != key or (proved is not None and p.minted_at_ms > proved.minted_at_ms)
    )
    return msgspec.structs.replace(state, pins=pins, pending=keep)


def _without(state: StoreState, origin: str, runtime: str) -> StoreState:
    return msgspec.structs.replace(
        state,
        pins=tuple(p for p in state.pins if (p.origin, p.runtime) != (origin, runtime)),
        pending=tuple(p for p in state.pending if (p.origin, p.runtime) != (origin, runtime)),
    )
