"""Deciding whether a machine's identity key is the right one, and remembering that it is.

A minted secret decides alone: its HMAC must be there and right. Without one, a key is trusted only after a person
compared its words. A pinned key never changes silently.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from lattice.client.pairing import proves
from lattice.client.records import PersonalRuntime, Trust
from lattice.client.store import KeyStore, PendingPairing, Pin
from lattice.core.errors import LatticeError
from lattice.sealing.identity import PublicIdentity


class Judgement(NamedTuple):
    """What to think of a record, and the pairing that proved it where one just did."""

    trust: Trust
    proved: PendingPairing | None = None


def judge(record: PersonalRuntime, pin: Pin | None, pending: tuple[PendingPairing, ...]) -> Judgement:
    """Weigh a record against what this app knows. Pure; saves nothing."""
    identity = record.identity
    if identity is None:
        return Judgement(Trust.UNPAIRED)
    proved = next((p for p in pending if proves(record, p)), None)
    if proved is not None:
        return Judgement(Trust.VERIFIED, proved)
    if pin is not None and pin.public == identity:
        return Judgement(Trust.VERIFIED)
    if pending:
        return Judgement(Trust.PAIRING_INVALID)
    return Judgement(Trust.UNVERIFIED if pin is None else Trust.IDENTITY_CHANGED)


def assess(store: KeyStore, origin: str, record: PersonalRuntime, now_ms: int) -> PersonalRuntime:
    """The record with this app's `trust` filled in; a pairing that proves itself is pinned."""
    pin = store.pin(origin, record.id)
    verdict = judge(record, pin, store.pending(origin, record.id))
    if verdict.proved is not None and record.identity is not None:
        store.save_pin(Pin(origin, record.id, record.identity.text, "pairing", now_ms), verdict.proved)
    return msgspec.structs.replace(record, trust=verdict.trust)


def require_sound(record: PersonalRuntime) -> PersonalRuntime:
    """Raise for the two states that mean an attack or a mistake; the others are for the caller to weigh."""
    if record.trust is Trust.PAIRING_INVALID:
        raise LatticeError("pairing_invalid", f"The pairing proof of {record.id} is missing or wrong.")
    if record.trust is Trust.IDENTITY_CHANGED:
        raise LatticeError("runtime_identity_changed", f"{record.id} shows another identity key than the pinned one.")
    return record


def require_verified(record: PersonalRuntime) -> PublicIdentity:
    """The identity key to seal against, or the reason why there is none."""
    identity = require_sound(record).identity
    if identity is None:
        raise LatticeError("runtime_unreachable", f"{record.id} is {record.state}: no daemon has been paired with it.")
    if record.trust is not Trust.VERIFIED:
        raise LatticeError("runtime_unverified", f"{record.id} was not paired from this app and was never confirmed.")
    return identity


def confirm(store: KeyStore, origin: str, record: PersonalRuntime, words: str, now_ms: int) -> PersonalRuntime:
    """Pin the key whose fingerprint a person read on the machine's own screen. It may replace an older pin."""
    identity = record.identity
    if identity is None:
        raise LatticeError("runtime_unreachable", f"{record.id} is {record.state}: it has no identity key to confirm.")
    if _plain(words) != _plain(identity.words):
        raise LatticeError(
            "pairing_invalid", f"The words are not those of the key that the gateway shows for {record.id}."
        )
    newest = store.pending(origin, record.id)
    store.save_pin(Pin(origin, record.id, identity.text, "fingerprint", now_ms), newest[0] if newest else None)
    return msgspec.structs.replace(record, trust=Trust.VERIFIED)


def _plain(words: str) -> list[str]:
    return words.casefold().replace("-", " ").split()
