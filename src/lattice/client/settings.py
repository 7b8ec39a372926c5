"""Where a client's settings come from: arguments first, then `LATTICE_*` variables, then defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from lattice.core.defaults import GATEWAY_URL
from lattice.core.errors import LatticeError

DEFAULT_BASE_URL = GATEWAY_URL
DEFAULT_TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 10.0

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


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


def origin_of(url: str) -> str:
    """Canonical `scheme://host[:port]`: lower case, no default port, IPv6 in brackets, this machine as `127.0.0.1`.

    Pairing binds to it on both sides, so the three names of one loopback gateway must not be three gateways.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise LatticeError("config_invalid", "The gateway's address is not a URL.") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise LatticeError("config_invalid", "The gateway's address must begin with http:// or https://.")
    if parts.username is not None or parts.query or parts.fragment:
        raise LatticeError("config_invalid", "The gateway's address must have no credentials, query or fragment.")
    name = "127.0.0.1" if parts.hostname in _LOOPBACK else parts.hostname
    host = f"[{name}]" if ":" in name else name
    shown = "" if port is None or port == _DEFAULT_PORTS[parts.scheme] else f":{port}"
    return f"{parts.scheme}://{host}{shown}"


def is_loopback(origin: str) -> bool:
    """Whether a canonical origin is on this machine."""
    return urlsplit(origin).hostname == "127.0.0.1"


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
