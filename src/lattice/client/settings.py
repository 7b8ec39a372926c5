"""Where a client's settings come from: arguments first, then `LATTICE_*` variables, then defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from lattice.core.defaults import GATEWAY_URL
from lattice.core.errors import LatticeError
from lattice.core.origin import origin_of

DEFAULT_BASE_URL = GATEWAY_URL
DEFAULT_TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 10.0


class ClientSettings(msgspec.Struct, frozen=True):
    """Everything a client needs to reach a gateway. The repr leaves the key out."""

    base_url: str
    api_key: str
    timeout_s: float = DEFAULT_TIMEOUT_S

    @property
    def origin(self) -> str:
        """Scheme, host and port of the gateway: what pairings and pins are bound to."""
        return origin_of(self.base_url)

    def __repr__(self) -> str:
        return f"ClientSettings(base_url={self.base_url!r})"


def resolve_settings(
    base_url: str | None = None,
    api_key: str | None = None,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> ClientSettings:
    """Combine arguments, environment and defaults, or raise `config_invalid` / `invalid_credential`."""
    env = os.environ if environment is None else environment
    key = api_key or env.get("LATTICE_API_KEY")
    if not key:
        raise LatticeError("invalid_credential", "No key was given and LATTICE_API_KEY is not set.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise LatticeError("invalid_credential", "The key has characters that no key has; was it pasted whole?")
    address = normalise_base_url(base_url or env.get("LATTICE_BASE_URL") or DEFAULT_BASE_URL)
    return ClientSettings(address, key, DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s)


def normalise_base_url(text: str) -> str:
    """The gateway's root without a trailing slash; OpenAI's habit of ending it in `/v1` is accepted."""
    origin_of(text)
    return text.strip().rstrip("/").removesuffix("/v1")


def default_store_dir(environment: Mapping[str, str] | None = None) -> Path:
    """The key store's folder: `LATTICE_CLIENT_HOME`, else `lattice/client` under the XDG configuration folder."""
    env = os.environ if environment is None else environment
    if own := env.get("LATTICE_CLIENT_HOME"):
        return Path(own).expanduser()
    base = env.get("XDG_CONFIG_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".config"
    return root / "lattice" / "client"


def path_segment(text: str) -> str:
    """An id from outside, safe to put in a path."""
    if not text or not text.replace("_", "").isalnum() or not text.isascii():
        raise LatticeError("not_found", "That is not an id: they are made of letters, digits and `_`.")
    return text
