"""Who this machine is: its identity key and the pairing with its gateway."""

from __future__ import annotations

import msgspec

from lattice.core.errors import LatticeError
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey

IDENTITY_FILE = "identity.key"
PAIRING_FILE = "pairing.json"


class Pairing(msgspec.Struct, frozen=True):
    """The result of a redemption. `verified`: the pairing secret's HMAC was made, so the minting app can check us."""

    runtime: str
    origin: str
    relay_url: str
    credential: str
    gateway_key: str
    paired_at_ms: int
    verified: bool = False
    name: str | None = None

    def __repr__(self) -> str:
        return f"Pairing(runtime={self.runtime!r}, origin={self.origin!r}, verified={self.verified})"


def load_identity(state: StateDir) -> IdentityKey | None:
    """The machine's Ed25519 identity, if it has one yet."""
    raw = state.read_bytes(IDENTITY_FILE)
    if raw is None:
        return None
    if len(raw) != 32:
        message = f"The identity key {state.path(IDENTITY_FILE)} is damaged. Restore it, or pair the machine anew."
        raise LatticeError("config_invalid", message)
    return IdentityKey.from_bytes(raw)


def load_or_create_identity(state: StateDir) -> IdentityKey:
    """The machine's identity; made once and saved before anybody is told of it."""
    identity = load_identity(state)
    if identity is None:
        identity = IdentityKey.generate()
        state.write_bytes(IDENTITY_FILE, identity.to_bytes())
    return identity


def load_pairing(state: StateDir) -> Pairing | None:
    """The pairing, or None on a machine that has none."""
    return state.read(PAIRING_FILE, Pairing)


def save_pairing(state: StateDir, pairing: Pairing) -> None:
    """Write the pairing; a running daemon notices and connects."""
    state.write(PAIRING_FILE, pairing)
