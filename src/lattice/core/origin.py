"""A gateway's origin in one canonical form. Pairing binds to it on both sides, so both must spell it alike."""

from __future__ import annotations

from urllib.parse import urlsplit

from lattice.core.errors import LatticeError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def origin_of(url: str) -> str:
    """Canonical `scheme://host[:port]`: lower case, no default port, IPv6 in brackets, this machine as `127.0.0.1`.

    The three names of one loopback gateway must not be three gateways. Raises `config_invalid`.
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
