"""`QueryClient`: an end user's side of an encrypted model. What is asked is never in the clear outside this process.

```python
with QueryClient(token) as client:
    client.keys.ensure(progress=print)       # once: makes keys here, uploads those that are public
    answer = client.query(samples)           # encrypts, asks, checks the receipt, decrypts
```
"""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx2

from lattice.client.construct import http_options, new_context
from lattice.client.drivers import Driver
from lattice.client.encrypted.results import EncryptedQuery, EncryptedResult
from lattice.client.encrypted.session import Session, batches, joined
from lattice.client.encrypted.uploads import Progress, silent
from lattice.client.settings import default_store_dir, path_segment
from lattice.core.errors import LatticeError

if TYPE_CHECKING:
    from lattice.fhe.answers import Answer

TOKEN_VARIABLE = "LATTICE_ACCESS_TOKEN"  # noqa: S105
AT_ONCE = 4
"""Queries that one call of `query` has under way."""


def new_session(
    token: str | None,
    base_url: str | None,
    folder: Path | None,
    passphrase: str | None,
    wrapping_key: bytes | None,
    trust: Collection[bytes] | None,
    worker_identities: Collection[str] | None,
    timeout_s: float | None,
    max_retries: int,
) -> Session:
    """The shared part of both clients' constructors."""
    secret = token or os.environ.get(TOKEN_VARIABLE)
    if not secret:
        raise LatticeError("invalid_credential", f"No access token was given and {TOKEN_VARIABLE} is not set.")
    context = new_context(base_url, secret, None, timeout_s, max_retries, None)
    place = folder or default_store_dir() / "encrypted"
    return Session(context, place, passphrase, wrapping_key, trust, worker_identities)


class Keys:
    """The user's keys for this model."""

    def __init__(self, client: QueryClient) -> None:
        self._client = client

    def ensure(self, progress: Progress = silent, *, replace: bool = False) -> str:
        """Make sure that the gateway has this user's evaluation keys and this machine their secret; the keys' id.

        Nothing is done where they are there. `progress(stage, done, total)` is called while keys are made and
        uploaded. An upload that was interrupted goes on where it stopped. `replace` makes new ones.
        """
        session = self._client._session
        with session.lock:
            return self._client._driver.run(session.ensure(progress, replace=replace)).evaluation_keys

    def list(self) -> list[dict[str, Any]]:
        """What is registered for this user."""
        found = self._client._driver.run(self._client._session.context.get_json("/evaluation-keys"))
        return list(found.get("data", []))

    def delete(self, evaluation_keys: str) -> None:
        """Delete keys at the gateway; the secret stays here, and what is encrypted under it stays readable."""
        session = self._client._session
        self._client._driver.run(session.context.delete(f"/evaluation-keys/{path_segment(evaluation_keys)}"))
        with session.lock:
            session.forget_keys()


class QueryClient:
    """Asks one encrypted model with one access token. Safe to share between threads; close it, or use a `with` block.

    The secret key stays on this machine, encrypted: under `passphrase`, under `wrapping_key` (32 bytes, from an OS
    keyring), or under a key of its own in the client's folder. `trust` are raw public keys of publishers, of whom one
    must have signed the model; `worker_identities` are the workers whose receipts are accepted. None: any.
    """

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str | None = None,
        folder: Path | None = None,
        passphrase: str | None = None,
        wrapping_key: bytes | None = None,
        trust: Collection[bytes] | None = None,
        worker_identities: Collection[str] | None = None,
        timeout_s: float | None = None,
        max_retries: int = 2,
        http_client: httpx2.Client | None = None,
    ) -> None:
        self._session = new_session(
            token, base_url, folder, passphrase, wrapping_key, trust, worker_identities, timeout_s, max_retries
        )
        self._owned = http_client is None
        self._http = http_client or httpx2.Client(**http_options(self._session.context))
        self._driver = Driver(self._http)
        self.keys = Keys(self)

    def model(self) -> dict[str, Any]:
        """What the token may query, and which keys that needs."""
        self._ready(keys=False)
        assert self._session.model is not None
        return self._session.model.about

    def encrypt(self, samples: Any, *, strict: bool = False) -> EncryptedQuery:
        """Encrypt at most one batch. Outside of the calibrated range is warned of, or refused if `strict`."""
        self._ready()
        return self._driver.run(self._session.encrypt(samples, strict=strict))

    def execute(
        self,
        query: EncryptedQuery,
        *,
        verify: int = 1,
        database: str | None = None,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> EncryptedResult:
        """Send ciphertexts and wait for the encrypted results. `verify=2` has two workers compute and compare."""
        self._ready()
        return self._driver.run(
            self._session.execute(
                query, verify=verify, database=database, idempotency_key=idempotency_key, timeout_s=timeout_s
            )
        )

    def decrypt(self, result: EncryptedResult) -> Answer:
        """Values and labels."""
        self._ready()
        return self._driver.run(self._session.decrypt(result))

    def query(self, samples: Any, *, strict: bool = False, verify: int = 1, database: str | None = None) -> Answer:
        """Any number of samples: encrypted, asked in batches (several under way at a time), decrypted."""
        self._ready()
        assert self._session.model is not None

        def ask(batch: Any) -> Answer:
            plan = self._session.ask(batch, strict=strict, verify=verify, database=database)
            answer: Answer = self._driver.run(plan)
            return answer

        parts = batches(self._session.model.view, samples, strict)
        if len(parts) == 1:
            return ask(parts[0])
        with ThreadPoolExecutor(min(AT_ONCE, len(parts))) as pool:
            return joined(list(pool.map(ask, parts)))

    def upload_database(self, rows: Any, progress: Progress = silent) -> str:
        """Encrypt rows and upload them once; pass the id to `query(…, database=…)`."""
        self._ready()
        return self._driver.run(self._session.upload_database(rows, progress))

    def cancel(self, query_id: str) -> dict[str, Any]:
        """Cancel a query that has not been answered."""
        return self._driver.run(self._session.context.delete(f"/encrypted-queries/{path_segment(query_id)}"))

    def close(self) -> None:
        """Wipe the secret from memory and close the connections that this client opened."""
        self._session.close()
        if self._owned:
            self._http.close()

    def _ready(self, keys: bool = True) -> None:
        """Read the model and open or make the keys once, whichever thread comes first."""
        session = self._session
        if session.model is None or (keys and session.keys is None):
            with session.lock:
                self._driver.run(session.view())
                if keys:
                    self._driver.run(session.ensure())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._session.context.origin!r})"
