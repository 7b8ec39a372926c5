"""What `lattice-ctl status` shows: plain data, the same in the API and on the screen, and nothing secret."""

from __future__ import annotations

import msgspec

from lattice.core.relay import ModelOffer
from lattice.runtime.relay import RelayStatus


class EngineStatus(msgspec.Struct):
    """The local model. `state`: starting, ready or failed."""

    name: str
    state: str
    models: tuple[ModelOffer, ...] = ()
    problem: str | None = None


class PairingStatus(msgspec.Struct):
    """With whom this machine is paired."""

    runtime: str
    origin: str
    verified: bool
    model: str


class DaemonStatus(msgspec.Struct):
    """Everything at once."""

    version: str
    pid: int
    started_at_ms: int
    state_dir: str
    fingerprint: str
    identity_key: str
    engine: EngineStatus
    pairing: PairingStatus | None = None
    relay: RelayStatus | None = None
    local_api: str | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """`daemon.json`: where the running daemon's local API is."""

    pid: int
    host: str
    port: int
    started_at_ms: int

    @property
    def url(self) -> str:
        """The address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


ENDPOINT_FILE = "daemon.json"
TOKEN_FILE = "local_token"  # noqa: S105
LOG_FILE = "daemon.log"
