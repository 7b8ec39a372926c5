"""Small helpers over aiohttp that the relay, the engines and pairing share."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp

from lattice.core.errors import LatticeError

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PORTS = {"http": 80, "https": 443}


class TooLarge(Exception):
    """An answer is over its limit."""


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body, or `TooLarge` without having held more than `limit` bytes."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > limit:
            raise TooLarge
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def finish(response: aiohttp.ClientResponse) -> None:
    """Put a connection back into the pool if its answer was read to the end, else close it so that the server stops."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; every name of this machine's loopback counts as one host."""
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        port = 0
    if parts.scheme not in _PORTS or not parts.hostname or not port:
        raise LatticeError("config_invalid", "The gateway's address must look like https://host[:port].")
    host = parts.hostname.lower()
    return parts.scheme, "localhost" if host in _LOOPBACK else host, port


def require_safe_url(url: str, allow_plain_http: bool) -> str:
    """The address without a trailing slash; plain http to another machine only where the settings permit it."""
    scheme, host, _ = origin_of(url)
    if scheme == "http" and host != "localhost" and not allow_plain_http:
        message = (
            "The gateway's address is http:// on another machine: credentials would travel in clear. Use https://."
        )
        raise LatticeError("config_invalid", message)
    return url.rstrip("/")
