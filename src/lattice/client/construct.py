"""What both clients do with their constructor's arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2

from lattice import __version__
from lattice.client.context import Context
from lattice.client.disk import disk_key_store
from lattice.client.retry import RetryPolicy
from lattice.client.settings import CONNECT_TIMEOUT_S, DEFAULT_TIMEOUT_S, resolve_settings
from lattice.client.store import KeyStore
from lattice.core.clock import Clock
from lattice.core.origin import is_loopback


def new_context(
    base_url: str | None,
    api_key: str | None,
    store: KeyStore | Path | None,
    timeout_s: float | None,
    max_retries: int,
    clock: Clock | None,
) -> Context:
    """Settings from arguments and environment; the user's key store unless another is given."""
    settings = resolve_settings(base_url, api_key, timeout_s)
    return Context(
        root=f"{settings.base_url}/v1",
        origin=settings.origin,
        headers={"authorization": f"Bearer {settings.api_key}", "user-agent": f"lattice-python/{__version__}"},
        store=store if isinstance(store, KeyStore) else disk_key_store(store),
        policy=RetryPolicy(max_retries=max_retries),
        clock=clock,
        timeout_s=timeout_s,
    )


def http_options(context: Context) -> dict[str, Any]:
    """Patient for the answer, quick to find out that nobody listens; and no proxy in front of this machine itself."""
    limit = context.timeout_s or DEFAULT_TIMEOUT_S
    timeout = httpx2.Timeout(limit, connect=min(limit, CONNECT_TIMEOUT_S))
    return {"timeout": timeout, "trust_env": not is_loopback(context.origin)}
