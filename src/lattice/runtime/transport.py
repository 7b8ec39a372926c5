"""The four relay calls over HTTP: MessagePack out and in, failures sorted into "again" and "never"."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import aiohttp
import msgspec

from lattice import __version__
from lattice.core.errors import error_from_body
from lattice.core.relay import (
    MAX_RELAY_BODY,
    RELAY_MEDIA_TYPE,
    FailRequest,
    FramesRequest,
    PollReply,
    PollRequest,
    RefsRequest,
    RelayAck,
)
from lattice.runtime.http import TooLarge, finish, read_bounded

T = TypeVar("T")

RELAY_PATH = "/v1/relay"
BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 30.0
_POLL_GRACE_S = 15.0
_POST_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)


class RelayDown(Exception):
    """The gateway did not take the call: try again later. `retry_after_s` is the gateway's own wish, if it has one."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class RelayTransport:
    """Calls under one runtime credential. Raises `RelayDown` where repeating may help, else a LatticeError."""

    def __init__(self, relay_url: str, credential: str) -> None:
        self.base = relay_base(relay_url)
        self._credential = credential
        self._session: aiohttp.ClientSession | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._poll_reply = msgspec.msgpack.Decoder(PollReply)
        self._ack = msgspec.msgpack.Decoder(RelayAck)

    def open(self) -> None:
        """Make the connection pool; needs a running loop."""
        headers = {
            "Authorization": f"Bearer {self._credential}",
            "Content-Type": RELAY_MEDIA_TYPE,
            "Accept": RELAY_MEDIA_TYPE,
            "User-Agent": f"lattice-daemon/{__version__}",
        }
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=75), headers=headers
        )

    async def close(self) -> None:
        """Close the pool."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def poll(self, request: PollRequest, hold_ms: int) -> PollReply:
        """One poll; the gateway holds it for up to `hold_ms`."""
        timeout = aiohttp.ClientTimeout(total=hold_ms / 1000 + _POLL_GRACE_S, sock_connect=10)
        return await self._call(f"{self.base}/poll", request, self._poll_reply, timeout)

    async def frames(self, url: str, request: FramesRequest) -> RelayAck:
        """Deliver frames to the gateway that holds the callers."""
        return await self._call(url, request, self._ack, _POST_TIMEOUT)

    async def renew(self, request: RefsRequest) -> RelayAck:
        """Keep leases alive."""
        return await self._call(f"{self.base}/renew", request, self._ack, _POST_TIMEOUT)

    async def fail(self, request: FailRequest) -> RelayAck:
        """Report a failed attempt."""
        return await self._call(f"{self.base}/fail", request, self._ack, _POST_TIMEOUT)

    async def _call(
        self, url: str, request: Any, decoder: msgspec.msgpack.Decoder[T], timeout: aiohttp.ClientTimeout
    ) -> T:
        if self._session is None:
            raise RelayDown("the connection is closed")
        try:
            response = await self._session.post(url, data=self._encode(request), timeout=timeout, allow_redirects=False)
            try:
                data = await read_bounded(response, MAX_RELAY_BODY)
            finally:
                finish(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RelayDown(type(error).__name__) from None
        except TooLarge:
            raise RelayDown("the gateway's answer is too large") from None
        if response.status != 200:
            raise refusal(response, data)
        try:
            return decoder.decode(data)
        except msgspec.DecodeError:
            raise RelayDown("the gateway's answer is not of this protocol") from None


def jittered_backoff(tries: int) -> float:
    """Exponential back-off with full jitter, so that a restarted gateway is not met by every daemon at once."""
    return random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(tries, 10)))  # noqa: S311


def relay_base(url: str) -> str:
    """The address of the relay routes, from a relay URL with or without their path."""
    url = url.rstrip("/")
    return url if url.endswith(RELAY_PATH) else url + RELAY_PATH


def frames_url(base: str, results_url: str | None) -> str:
    """Where frames go: the poll's `results_url` (whole, or only an address), else where the polls go.

    The credential goes along, so an https gateway can't send it over plain http.
    """
    if not results_url or (base.startswith("https://") and not results_url.startswith("https://")):
        return f"{base}/frames"
    return results_url if results_url.endswith("/frames") else f"{relay_base(results_url)}/frames"


def refusal(response: aiohttp.ClientResponse, data: bytes) -> Exception:
    """A catalogued 4xx is the gateway's word and final; anything else may be a proxy, a restart or an overload."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    error = error_from_body(response.status, body)
    if 400 <= response.status < 500 and response.status not in (408, 429) and error.code != "gateway_unreachable":
        return error
    return RelayDown(f"HTTP {response.status}", (error.retry_after_ms or 0) / 1000)
