"""Everything an operator can set, with its default. Environment prefix `LATTICE_GATEWAY_`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from lattice.core.defaults import GATEWAY_PORT
from lattice.core.errors import LatticeError


def default_data_dir() -> Path:
    """The user's data folder, after the XDG base directory rules."""
    given = os.environ.get("XDG_DATA_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share"
    return base / "lattice" / "gateway"


class GatewaySettings(BaseSettings):
    """Settings of one gateway process."""

    model_config = SettingsConfigDict(env_prefix="LATTICE_GATEWAY_", extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(GATEWAY_PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str = Field("", description="Origin that clients and daemons use; empty means http://host:port.")
    data_dir: Path = Field(default_factory=default_data_dir, description="Folder for the database and the keys.")
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite in `data_dir`.")
    max_body_bytes: int = Field(16 * 1024 * 1024, ge=1024, description="Largest request body.")
    body_seconds: float = Field(30.0, gt=0, description="Time for a request body to arrive.")
    header_seconds: float = Field(10.0, gt=0, description="Time for request headers to arrive.")
    execution_seconds: float = Field(600.0, gt=0, description="Time for a runtime to finish a work.")
    keep_alive_seconds: float = Field(15.0, gt=0, description="Silence after which a stream gets a comment.")
    max_queue: int = Field(256, ge=0, description="Works that may wait for one runtime.")
    drain_seconds: float = Field(20.0, ge=0, description="Time for running work to finish at shutdown.")
    compile_memory_mib: int = Field(4096, ge=512, description="Memory for checking or compiling an uploaded model.")
    compile_seconds: float = Field(900.0, gt=0, description="Time for checking or compiling an uploaded model.")
    webhook_private_addresses: bool = Field(
        False, description="Let webhooks go to private and loopback addresses, and over plain http."
    )
    max_query_bytes: int = Field(512 * 1024 * 1024, ge=1024, description="Largest encrypted query.")
    query_retention_hours: float = Field(24.0, gt=0, description="How long an encrypted query's result is kept.")
    kubernetes_config: str = Field(
        "", description="Kubeconfig file, or `in-cluster`, for workers of kind `kubernetes`; empty allows none."
    )
    kubernetes_namespace: str = Field("", description="Namespace of workers' pods; empty means that of the access.")
    kubernetes_gateway_url: str = Field("", description="Origin under which pods reach this gateway, where it differs.")
    log_level: str = Field("info", description="debug, info, warning or error.")
    log_json: bool = Field(True, description="Structured logs as JSON lines; false for people.")

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'lattice.db'}"

    @property
    def origin(self) -> str:
        """The origin in force, without a trailing slash. Pairing binds to it."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


def load_settings(given: dict[str, Any]) -> GatewaySettings:
    """Command-line values over the environment over the defaults; `config_invalid` names the setting."""
    try:
        return GatewaySettings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise LatticeError("config_invalid", f"The gateway's setting `{name}`: {first['msg']}.") from None
