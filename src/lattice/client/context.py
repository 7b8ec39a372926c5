"""What every plan needs besides its arguments: where the gateway is, who asks, the key store and the time."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from lattice.client.exchange import Call, Plan, query, send
from lattice.client.records import PersonalRuntime
from lattice.client.retry import RetryPolicy
from lattice.client.store import KeyStore
from lattice.core.clock import MINUTE_MS, Clock, SystemClock
from lattice.core.ids import Prefix, new_id

RECORD_LIFE_MS = 5 * MINUTE_MS


class Records:
    """Runtimes that were read and verified a moment ago, so that a sealed request costs one round trip, not two."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[int, PersonalRuntime]] = {}

    def get(self, origin: str, runtime: str, now_ms: int) -> PersonalRuntime | None:
        """A record younger than `RECORD_LIFE_MS`."""
        at_ms, record = self._kept.get((origin, runtime), (0, None))
        return record if now_ms - at_ms < RECORD_LIFE_MS else None

    def put(self, origin: str, record: PersonalRuntime, now_ms: int) -> None:
        """Keep a record."""
        self._kept[(origin, record.id)] = (now_ms, record)

    def drop(self, origin: str, runtime: str) -> None:
        """Forget a record that proved to be out of date."""
        self._kept.pop((origin, runtime), None)


class Context:
    """One caller at one gateway. `root` is the address up to and including `/v1`."""

    def __init__(
        self,
        *,
        root: str,
        origin: str,
        headers: Mapping[str, str],
        store: KeyStore,
        policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        records: Records | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self.root = root
        self.origin = origin
        self.headers = headers
        self.store = store
        self.policy = policy or RetryPolicy()
        self.clock = clock or SystemClock()
        self.records = records or Records()
        self.timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"Context({self.root!r})"

    def now_ms(self) -> int:
        """The time."""
        return self.clock.now_ms()

    def new_work_id(self) -> str:
        """A fresh id for a unit of work."""
        return new_id(Prefix.WORK, self.now_ms())

    def new_key(self) -> str:
        """A fresh idempotency key."""
        return f"lattice-{secrets.token_urlsafe(18)}"

    def post(
        self,
        path: str,
        content: bytes,
        headers: Mapping[str, str],
        *,
        stream: bool = False,
        replay_safe: bool = False,
        timeout_s: float | None = None,
    ) -> Call:
        """A POST of ready bytes to a route under `root`."""
        return Call(
            "POST",
            self.root + path,
            content=content,
            headers={**self.headers, **headers},
            replay_safe=replay_safe,
            stream=stream,
            timeout_s=timeout_s or self.timeout_s,
        )

    def get_json(self, path: str, **parameters: Any) -> Plan[dict[str, Any]]:
        """GET a JSON object."""
        call = Call(
            "GET",
            self.root + path,
            headers=self.headers,
            params=query(parameters.items()),
            replay_safe=True,
            timeout_s=self.timeout_s,
        )
        return (yield from send(call, self.policy)).json()

    def post_json(
        self, path: str, body: Mapping[str, Any], *, idempotency_key: str | None = None, replay_safe: bool = False
    ) -> Plan[dict[str, Any]]:
        """POST a JSON object. Only with `replay_safe` is it ever sent again after it may have arrived."""
        headers = {"content-type": "application/json"}
        if idempotency_key is not None:
            headers["idempotency-key"] = idempotency_key
        call = self.post(path, msgspec.json.encode(body), headers, replay_safe=replay_safe)
        return (yield from send(call, self.policy)).json()

    def put_json(self, path: str, body: Mapping[str, Any]) -> Plan[dict[str, Any]]:
        """PUT a JSON object, which may be repeated."""
        call = Call(
            "PUT",
            self.root + path,
            msgspec.json.encode(body),
            {**self.headers, "content-type": "application/json"},
            replay_safe=True,
            timeout_s=self.timeout_s,
        )
        return (yield from send(call, self.policy)).json()

    def delete(self, path: str) -> Plan[dict[str, Any]]:
        """DELETE, which may be repeated: revoking twice is revoking once."""
        call = Call("DELETE", self.root + path, headers=self.headers, replay_safe=True, timeout_s=self.timeout_s)
        answer = yield from send(call, self.policy)
        return answer.json() if answer.content else {}
