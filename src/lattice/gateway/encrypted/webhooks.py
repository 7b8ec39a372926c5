"""Signed webhooks: each event is posted to its model's address, a bounded number of times.

`lattice-signature: t=<seconds>,v1=<hex>` is HMAC-SHA256, under the webhook's secret, of `<seconds>.<body>`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from lattice.core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock
from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.event_rows import EventRow, due_events, note_attempt
from lattice.gateway.encrypted.model_rows import ModelRow, find_model
from lattice.gateway.encrypted.secret_box import SecretBox
from lattice.gateway.store.database import Store

_log = structlog.get_logger("lattice.gateway.webhooks")

WAITS_MS = (5 * SECOND_MS, 30 * SECOND_MS, 5 * MINUTE_MS, HOUR_MS)
"""Between attempts; after the last one the event is only in the list."""
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 1.0


def signature(secret: str, seconds: int, body: bytes) -> str:
    """The header's value."""
    mac = hmac.digest(secret.encode(), b"%d." % seconds + body, "sha256").hex()
    return f"t={seconds},v1={mac}"


def check_url(url: str, allow_private: bool) -> str:
    """The address, or `invalid_request`: public and https, unless the operator allows private addresses."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise LatticeError("invalid_request", "`webhook_url` is not a URL.") from None
    if not host or parts.username is not None or parts.scheme not in ("https", *(["http"] if allow_private else [])):
        raise LatticeError("invalid_request", "`webhook_url` must begin with https:// and hold no credentials.")
    if not allow_private and not _public(host, unresolved=True):
        raise LatticeError("invalid_request", "`webhook_url` must be an address of the public internet.")
    return url


class PublicResolver(AbstractResolver):
    """Resolves names, and forgets every address that is not of the public internet: a webhook must not look inside."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The public addresses of a name."""
        found = [each for each in await self._inner.resolve(host, port, family) if _public(each["host"])]
        if not found:
            raise OSError("no public address")
        return found

    async def close(self) -> None:
        """Nothing is open."""


class Webhooks:
    """Delivers what is due."""

    def __init__(self, store: Store, box: SecretBox, clock: Clock, allow_private: bool) -> None:
        self._store, self._box, self._clock = store, box, clock
        self._allow_private = allow_private
        self.wake = asyncio.Event()

    async def run_forever(self) -> None:
        """Look for due events until cancelled."""
        resolver = None if self._allow_private else PublicResolver()
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(resolver=resolver, limit=16, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as http:
            while True:
                self.wake.clear()
                busy = False
                try:
                    rows = await self._store.read(due_events, self._clock.now_ms())
                    await asyncio.gather(*[self._deliver(http, row) for row in rows])
                    busy = bool(rows)
                except LatticeError as error:
                    _log.warning("webhooks_failed", code=error.code)
                if not busy:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_SECONDS):
                            await self.wake.wait()

    async def _deliver(self, http: aiohttp.ClientSession, row: EventRow) -> None:
        model = await self._store.read(find_model, row.model_id or "")
        if model is None or model.webhook_url is None or model.webhook_secret is None:
            await self._store.write(note_attempt, row.id, row.attempts, None, None)
            return
        taken = await self._post(http, model, row)
        now, attempts = self._clock.now_ms(), row.attempts + 1
        again = None if taken or attempts > len(WAITS_MS) else now + WAITS_MS[attempts - 1]
        await self._store.write(note_attempt, row.id, attempts, again, now if taken else None)

    async def _post(self, http: aiohttp.ClientSession, model: ModelRow, row: EventRow) -> bool:
        assert model.webhook_url is not None
        assert model.webhook_secret is not None
        body, seconds = row.body.encode(), self._clock.now_ms() // 1000
        headers = {
            "content-type": "application/json",
            "lattice-event": row.copy_of or row.id,
            "lattice-signature": signature(self._box.open(model.webhook_secret, "webhook"), seconds, body),
        }
        try:
            url = check_url(model.webhook_url, self._allow_private)
            async with http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, LatticeError, OSError, TimeoutError, ValueError):
            return False


def _public(host: str, unresolved: bool = False) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return unresolved and host.rstrip(".").lower() != "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_global and not (mapped or address).is_multicast
