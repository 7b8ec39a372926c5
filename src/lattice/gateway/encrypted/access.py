"""Who asks on the routes of encrypted inference: a provider by developer key, or an end user by access token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import ClientDisconnect, Request

from lattice.core.errors import LatticeError
from lattice.core.ids import SecretPrefix
from lattice.gateway.api.credentials import presented_secret
from lattice.gateway.encrypted.token_rows import TokenRecord
from lattice.gateway.http.exchange import ClientGone
from lattice.gateway.identity.scopes import Scope

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

_TOKEN = f"{SecretPrefix.ACCESS_TOKEN}_"


class Uploader(NamedTuple):
    """Whoever uploads. `id` is the credential's."""

    id: str
    account_id: str
    token_id: str | None


def token_holder(gateway: Gateway) -> Callable[[Request], Awaitable[TokenRecord]]:
    """A dependency: the live access token that asks, within its requests per minute."""

    async def dependency(request: Request) -> TokenRecord:
        return await authenticate_token(gateway, request)

    return dependency


def uploading(gateway: Gateway) -> Callable[[Request], Awaitable[Uploader]]:
    """A dependency: a key that may manage models, or an access token of an assigned user."""

    async def dependency(request: Request) -> Uploader:
        return await _uploader(gateway, request)

    return dependency


async def authenticate_token(gateway: Gateway, request: Request) -> TokenRecord:
    """The live access token that asks, within its requests per minute."""
    secret = presented_secret(request.headers)
    if not secret.startswith(_TOKEN):
        raise LatticeError("invalid_credential", "This route takes an access token, `eut_…`.")
    token = await gateway.encrypted.tokens.authenticate(secret)
    gateway.rates.require(token)
    return token


async def _uploader(gateway: Gateway, request: Request) -> Uploader:
    if presented_secret(request.headers).startswith(_TOKEN):
        token = await authenticate_token(gateway, request)
        token.require_user()
        return Uploader(token.id, token.account_id, token.id)
    key = await gateway.authenticate(request)
    key.require_scope(Scope.MODELS_MANAGE)
    return Uploader(key.id, key.account_id, None)


def announced_size(request: Request) -> int | None:
    """What `content-length` says; the server lets no body be longer than that."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isdigit() else None


async def body_pieces(request: Request, seconds: float) -> AsyncIterator[bytes]:
    """The body as it arrives; `request_timeout` where nothing does for that long."""
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(seconds):
                piece = await anext(stream, None)
            if piece is None:
                return
            yield piece
    except TimeoutError:
        raise LatticeError("request_timeout") from None
    except ClientDisconnect:
        raise ClientGone from None
