"""Small helpers over aiohttp that the relay, the engines and pairing share."""

from __future__ import annotations

import aiohttp

from lattice.core.errors import LatticeError
from lattice.core.origin import is_loopback, origin_of


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


def require_safe_url(url: str, allow_plain_http: bool) -> str:
    """The address without a trailing slash; plain http to another machine only where the settings permit it."""
    origin = origin_of(url)
    if origin.startswith("http://") and not is_loopback(origin) and not allow_plain_http:
        message = (
            "The gateway's address is http:// on another machine: credentials would travel in clear. Use https://."
        )
        raise LatticeError("config_invalid", message)
    return url.rstrip("/")
